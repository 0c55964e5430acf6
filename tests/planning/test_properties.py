"""Whatever is asked for is a plan in which all numbers belong together, or one message; in under a second.

The tests try some hundred, the same each time; HYPOTHESIS_PROFILE=thorough tries 10,000 of each kind.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megdet.analysis.table_spec import read_spec
from megdet.config.compose import compose
from megdet.config.experiments import Asked
from megdet.config.locations import SWEEPS
from megdet.config.schema import Config
from megdet.config.sweep_file import read_rows
from megdet.errors import UserError
from megdet.launchers.local.launcher import LocalLauncher
from megdet.launchers.local.machine import Machine
from megdet.planning.identity import experiment_id_of, run_id_of
from megdet.planning.plan import Plan, config_in, make_plan
from megdet.sweep.points import plan_points
from tests.planning.anything import anything, configs, overrides

T = TypeVar("T")
MOST_S = 3.0
"""Of processor time: on a quiet machine the slowest takes about 1 s, one that does not end takes minutes."""
HERE = LocalLauncher(Machine(("0", "1"), cores=2))


def answered(act: Callable[[], T]) -> T | None:
    """What an act gives, or None where it is refused, in one message; either within a second."""
    began = time.process_time()
    try:
        return act()
    except UserError as error:
        check_message(str(error))
        return None
    finally:
        assert time.process_time() - began < MOST_S


def check_message(message: str) -> None:
    first, _, more = message.partition("\n")
    assert first and first.isprintable(), message
    assert not more or (more.startswith("What would work: ") and more.isprintable()), message
    assert len(message) < 2000, message


def check_plan(plan: Plan) -> None:
    """Everything that a plan promises."""
    config, layout, schedule = plan.config, plan.layout, plan.schedule
    cluster = config.cluster
    assert isinstance(cluster.gpus_per_node, int) and isinstance(config.data.train_images, int)
    assert layout.gpus * layout.images_per_gpu * layout.accumulation == config.batch
    assert layout.nodes * layout.gpus_per_node == layout.gpus
    assert layout.gpus_per_node <= cluster.gpus_per_node
    assert isinstance(cluster.nodes, str) or layout.nodes <= cluster.nodes
    assert config.gpus in ("auto", layout.gpus) and config.images_per_gpu in ("auto", layout.images_per_gpu)
    assert layout.images_per_gpu <= (cluster.max_images_per_gpu or layout.images_per_gpu)
    assert min(layout.bn_group, layout.bn_splits) == 1
    if config.bn_size:
        assert layout.bn_group * layout.images_per_gpu == config.bn_size * layout.bn_splits
    assert (layout.gpus if cluster.bn_across_nodes else layout.gpus_per_node) % layout.bn_group == 0

    assert schedule.steps_per_epoch == config.data.train_images // config.batch >= 1
    assert schedule.steps == schedule.steps_per_epoch * config.schedule.epochs
    assert 0 <= schedule.warmup_steps <= min([schedule.steps, *(step for step, _ in schedule.milestones)])
    steps = [0, schedule.warmup_steps, schedule.steps - 1, *(step for step, _ in schedule.milestones)]
    from_zero = schedule.warmup_steps and config.lr.warmup_start == 0
    assert all(0 < schedule.lr_at(step) < math.inf for step in steps if step or not from_zero)
    if not schedule.warmup_steps and not schedule.milestones:
        assert schedule.lr_at(0) == schedule.lr

    assert re.fullmatch(r"[A-Za-z0-9_.+-]{1,255}", plan.run_id) and plan.run_id.startswith(plan.name)
    assert re.fullmatch(r"[0-9a-f]{12}", plan.experiment_id)
    assert all(note.isprintable() for note in plan.notes)
    text = plan.to_json()
    assert Plan.from_json(text) == plan and config_in(text) == config
    check_ids(config)


def check_ids(config: Config) -> None:
    """The seed is part of a run's id and not of its experiment's; where a run is made is part of neither."""
    ids = experiment_id_of(config), run_id_of(config)
    seed, config.seed = config.seed, (config.seed + 1) % 2**31
    assert experiment_id_of(config) == ids[0] and run_id_of(config) != ids[1]
    config.seed = seed
    gpus, config.gpus = config.gpus, 12345
    assert (experiment_id_of(config), run_id_of(config)) == ids
    config.gpus = gpus


@given(configs())
def test_any_settings_are_a_plan_whose_numbers_belong_together_or_one_message(config: Config) -> None:
    plan = answered(lambda: make_plan(config))
    if plan is not None:
        check_plan(plan)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


@contextmanager
def no_file_is_made(folder: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield
    assert not list(folder.iterdir())


@pytest.mark.slow
@given(overrides())
def test_any_command_line_is_a_plan_or_one_message(empty: Path, words: list[str]) -> None:
    with no_file_is_made(empty):
        config = answered(lambda: compose(words))
        if config is not None:
            points = answered(lambda: plan_points([Asked((), config)], to_run_here=False, launcher=HERE))
            assert points is not None, "what cannot be is a point that says why"
            if points[0].plan is None:
                check_message(points[0].why)
            else:
                check_plan(points[0].plan)


@st.composite
def edited(draw: st.DrawFn, values: Any) -> Any:
    """JSON of which one value is another, is missing or is one more."""
    values = json.loads(json.dumps(values))
    place, path = values, draw(st.integers(1, 5))
    for _ in range(path - 1):
        inner = [key for key, value in _entries(place) if isinstance(value, dict | list) and value]
        if not inner:
            break
        place = place[draw(st.sampled_from(inner))]
    key = draw(st.sampled_from([key for key, _ in _entries(place)]))
    what = draw(st.sampled_from(["another", "missing", "one more"]))
    if what == "missing":
        del place[key]
    elif what == "another" or isinstance(place, list):
        place[key] = draw(anything.filter(_is_json))
    else:
        place[draw(st.text(max_size=5))] = draw(anything.filter(_is_json))
    return values


def _entries(place: Any) -> list[tuple[Any, Any]]:
    return list(place.items()) if isinstance(place, dict) else list(enumerate(place))


def _is_json(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except ValueError:
        return False


def planned() -> Plan:
    config = Config(batch=64, bn_size=32)
    config.cluster.nodes, config.cluster.gpus_per_node = 2, 8
    return make_plan(config, commit="abc", dirty=True)


PLANNED = planned()


@given(edited(json.loads(PLANNED.to_json())))
def test_an_edited_plan_is_what_it_says_or_refused(values: Any) -> None:
    plan = answered(lambda: Plan.from_json(json.dumps(values)))
    if plan is not None:
        check_plan(plan)
        assert json.loads(plan.to_json()) == values, "nothing in it is passed over"


@given(st.data())
def test_a_plan_that_was_torn_or_overwritten_is_refused_or_as_it_was(data: st.DataObject) -> None:
    text = PLANNED.to_json()
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 40)) | st.just(len(text)))
    torn = text[:start] + data.draw(st.text(max_size=4) | st.just("")) + text[stop:]
    plan = answered(lambda: Plan.from_json(torn))
    if plan is not None:
        check_plan(plan)
        assert json.loads(plan.to_json()) == json.loads(torn)


@given(st.data())
def test_a_damaged_sweep_file_is_rows_or_one_message_for_launching_and_for_tables(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = (SWEEPS / f"{data.draw(st.sampled_from(['table1', 'table2', 'table3']))}.yaml").read_bytes()
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, min(len(content), start + 30)) | st.just(len(content)))
    odd = data.draw(
        st.binary(max_size=4) | st.text(max_size=4).map(lambda text: text.encode(errors="surrogateescape"))
        | st.sampled_from([b"[", b"{", b"&a ", b"*a", b"? ", b"<<: ", b"!!set ", b": ", b"\n- ", b"2026-01-01", b"\t"])
    )  # fmt: skip
    path = tmp_path_factory.getbasetemp() / "mine.yaml"
    path.write_bytes(content[:start] + odd + content[stop:])
    rows = answered(lambda: read_rows(str(path)))
    assert rows is None or all(row.overrides for row in rows)
    answered(lambda: read_spec(path))


@given(st.text() | st.binary().map(lambda content: content.decode("latin-1")))
@settings(max_examples=50)
def test_any_text_is_no_plan(text: str) -> None:
    assert answered(lambda: Plan.from_json(text)) is None


THE_LIST = [
    "gpus=999999", "batch=9223372036854775807", "schedule.factors=[inf,0.1]", "experiment=[1]",
    "data.root='~nouser/x'", "model.bn_in=[[1]]", "schedule.name='a/b'", "schedule.name='; drop'",
]  # fmt: skip


@pytest.mark.parametrize("override", THE_LIST)
def test_what_once_hung_passed_or_was_a_traceback_is_one_message(override: str) -> None:
    def plan() -> Plan:
        [point] = plan_points([Asked((), compose([override]))], to_run_here=False, launcher=HERE)
        if point.plan is None:
            raise UserError(point.why)
        return point.plan

    assert answered(plan) is None
