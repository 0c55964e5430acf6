"""The schema as a whole: every setting is checked, and has a place in the identity of a run or outside of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

from megdet.config.schema import Config
from megdet.errors import UserError
from megdet.planning.identity import PLACES, SEMANTIC, UNORDERED
from megdet.settings.rules import RULE, Settings

NOT_SEMANTIC = {
    "gpus", "images_per_gpu", "sublinear", "seed", "runs_dir", "log_every", "noise_scale_every",
    "checkpoint_every_min", "cluster", "tracking", "sweep",
}  # fmt: skip


def settings_of(cls: type[Settings], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The key and the field of every setting."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        inner = hints[field.name]
        if isinstance(inner, type) and issubclass(inner, Settings):
            yield from settings_of(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field


def keys() -> list[str]:
    return [key for key, _ in settings_of(Config)]


def test_every_setting_has_a_rule() -> None:
    assert [key for key, field in settings_of(Config) if RULE not in field.metadata] == []


@pytest.mark.parametrize("key", keys())
def test_no_setting_takes_whatever_it_is_given(key: str) -> None:
    """Numbers that are none, and things that no setting is."""
    for value in (math.nan, -math.inf, object(), "", [object()], {"a": object()}):
        config = Config()
        *path, last = key.split(".")
        place: Any = config
        for part in path:
            place = getattr(place, part)
        setattr(place, last, value)
        with pytest.raises(UserError) as refused:
            config.check()
        assert f"{key}=" in str(refused.value)


def test_the_schemas_own_defaults_make_sense() -> None:
    Config().check()


def test_every_part_of_the_schema_decides_what_is_learned_or_does_not() -> None:
    """A new one has to be put on one side or the other."""
    assert {field.name for field in fields(Config)} == set(SEMANTIC) | NOT_SEMANTIC
    assert not set(SEMANTIC) & NOT_SEMANTIC
    assert set(UNORDERED) <= set(keys())
    assert all(any(key == place or key.startswith(f"{place}.") for key in keys()) for place in PLACES)


def test_bn_without_a_layer_and_a_norm_without_bn_are_refused() -> None:
    config = Config()
    config.model.bn_in = []
    with pytest.raises(UserError, match=r"model\.bn_in=\[\].*bn_size=16.*bn_size=0"):
        config.check()
    config = Config(bn_size=0)
    config.model.norm.name, config.model.norm.custom = "mine", {"_target_": "my_package.MyNorm"}
    with pytest.raises(UserError, match=r"bn_size=0.*model\.norm\.custom"):
        config.check()


def test_settings_of_sgd_are_refused_beside_an_own_optimizer() -> None:
    config = Config()
    config.optimizer.name, config.optimizer.custom = "adamw", {"_target_": "torch.optim.AdamW"}
    config.check()
    config.optimizer.weight_decay = 0.05
    with pytest.raises(UserError, match=r"optimizer\.weight_decay=0\.05 is for SGD.*optimizer\.custom"):
        config.check()


def test_an_own_schedule_does_not_go_by_the_name_of_the_papers() -> None:
    config = Config()
    config.schedule.custom = {"_target_": "my_package.Cosine"}
    with pytest.raises(UserError, match=r"schedule\.name=normal is the name of a built-in"):
        config.check()
    config.schedule.name = "cosine"
    config.check()
