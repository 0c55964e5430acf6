"""A user's own part in the place of a built-in one, by Hydra's convention: `_target_` and what it is called with.

    model:
      backbone:
        name: mine
        custom: {_target_: my_package.MyBackbone, width: 64}

Planning checks the form alone and imports nothing. The ranks import `_target_` and call it with what its slot gives
(the slot's Protocol says what) and with the other entries as keyword arguments.
"""

from __future__ import annotations

import keyword
import math
import pkgutil
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megdet.errors import UserError
from megdet.settings.rules import NAME, shown

TARGET = "_target_"
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*[.:][^\W\d]\w*(\.[^\W\d]\w*)*")
EXAMPLE = "{_target_: my_package.MyPart, width: 64}"


@dataclass(frozen=True)
class OwnPart:
    """The rule of a `custom` setting, whose type is Any: OmegaConf does not let a mapping take the place of a null."""

    def instead_of(self, value: object) -> str | None:
        if not isinstance(value, Mapping) or TARGET not in value:
            return f"a mapping with {TARGET}, such as {EXAMPLE}"
        target = value[TARGET]
        if not isinstance(target, str) or not _PATH.fullmatch(target) or any(map(keyword.iskeyword, _words(target))):
            return f"the dotted path of a class or function in {TARGET}, as in {EXAMPLE}; this one has {shown(target)}"
        for name, argument in value.items():
            if name == TARGET:
                continue
            if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
                return f"names of keyword arguments besides {TARGET}, as in {EXAMPLE}; {shown(name)} is none"
            if not _is_plain(argument):
                return (
                    "plain values (finite numbers, one-line text, true, false, null, lists and mappings of them, "
                    f"without a further {TARGET}); {name} is {shown(argument)}"
                )
        return None


def check_own_name(prefix: str, name: str, custom: Mapping[str, Any] | None, built_in: Sequence[str]) -> None:
    """Raise UserError where a part has a name that nobody knows, or an own part has the name of a built-in one.

    The name is what tables show; `prefix` is the key of the part's settings, with a dot.
    """
    if custom is None and name not in built_in:
        raise UserError(
            f"{prefix}name={shown(name)}: use one of {', '.join(built_in)}, or say what your own is in {prefix}custom"
        )
    if custom is not None:
        refuse_name_of_built_in(prefix, name, built_in)


def refuse_name_of_built_in(prefix: str, name: str, built_in: Sequence[str]) -> None:
    """Raise UserError where an own part has the name of a built-in one: tables would take one for the other."""
    if name in built_in:
        raise UserError(
            f"{prefix}custom is a part of your own, and {prefix}name={name} is the name of a built-in one; "
            f"give yours another, such as {prefix}name=mine"
        )


def make(key: str, custom: Mapping[str, Any], *given: object, **named: object) -> Any:
    """Import an own part and call it with what is given by its slot and by the user; `key` is the setting's.

    Raises UserError, naming the key, where it cannot be imported or does not take the call.
    """
    target = custom[TARGET]
    arguments = {name: value for name, value in custom.items() if name != TARGET}
    try:
        part = pkgutil.resolve_name(target)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{key}: {target} cannot be imported ({error}); it must be found where the ranks run: install its package "
            "there, or name its folder in PYTHONPATH"
        ) from error
    except Exception as error:
        raise UserError(f"{key}: importing {target} failed: {_last_words(error)}") from error
    given_twice = sorted(arguments.keys() & named.keys())
    if given_twice:
        raise UserError(f"{key}: leave out {', '.join(given_twice)}: megdet gives it itself")
    if not callable(part):
        raise UserError(f"{key}: {target} is {shown(part)}, and neither a class nor a function")
    try:
        return part(*given, **named, **arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{key}: {target} could not be made: {_last_words(error)}") from error


def misfit(key: str, custom: Mapping[str, Any], what: str) -> UserError:
    """The error for an own part that is not what its slot needs."""
    return UserError(f"{key}: {custom[TARGET]} does not fit: {what}")


def failed_trial(key: str, custom: Mapping[str, Any], error: Exception) -> UserError:
    """The error for an own part that failed when it was first used, before training."""
    return misfit(key, custom, _last_words(error))


def _words(path: str) -> list[str]:
    return re.split(r"[.:]", path)


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        names = [name for name in value if isinstance(name, str) and NAME.fullmatch(name) and name != TARGET]
        return len(names) == len(value) and all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return value.isprintable()
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= 2**53  # ids compare numbers as floats
    return value is None or isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value))


def _last_words(error: Exception) -> str:
    """An error of a user's code in one line, with its place where that is in the user's code."""
    words = ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return words if frame.filename == __file__ else f"{words} ({frame.filename}, line {frame.lineno})"
