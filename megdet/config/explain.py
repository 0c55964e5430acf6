"""What a user reads where Hydra or OmegaConf refuse what was asked: the setting, what is wrong with it, a way out."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import hydra
import omegaconf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from megdet.config.locations import CONF, LAUNCH, PACKAGE, own_conf
from megdet.config.own_files import no_text
from megdet.config.register import HYDRAS_CHOICES
from megdet.config.schema import Config
from megdet.errors import printable
from megdet.settings.rules import TextByName, rule_at, shown, way_out

_COMPOSERS = tuple(f"{Path(str(module.__file__)).parent}/" for module in (hydra, omegaconf))
_OURS = (f"{PACKAGE}/", f"{PACKAGE.parent / 'hydra_plugins' / 'megdet_'}")
MOST_SHOWN = 200
"""Characters of an override in a message."""


def is_of_composition(error: Exception) -> bool:
    """Whether Hydra or OmegaConf raised an error, or what they had called, and not code of ours.

    They meet a mistake with errors of all kinds: TypeError for `experiment=[1]`, OverflowError for a number of 400
    digits, ScannerError for a file that is no YAML.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(_COMPOSERS):
            return True
        if frame.filename.startswith(_OURS):
            return False
    return False


def explain(error: Exception, overrides: Sequence[str] = ()) -> str:
    """The mistake behind an error of composition, in one line, and what may have been meant.

    `overrides`: what was asked on the command line; other words in it are passed over.
    """
    if isinstance(error, OverrideParseException):
        return f"{_short(str(error.override))}: cannot be read.{_quoting_hint(str(error.override))}"
    text = str(error).strip()
    if isinstance(error, UnicodeDecodeError) and (folder := own_conf()) and (files := no_text(folder)):
        return f"{files}: not UTF-8 ({error.reason}); save it as UTF-8"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_option(error.missing_cfg_file, error.options, text)
    several = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", text)
    if several:
        return f"{_short(several[1])}: one value is needed here; -m (--multirun) launches each, and [...] makes a list"
    chosen = re.match(r"Multiple values for (\S+)\.", text)
    if chosen:
        return f"+{chosen[1]}: {chosen[1]} is chosen already; choose another without the +"
    key = _quoted_key(text)
    if key and key not in _known_keys():
        return f"{_short(key)}: {no_such_key(key)}"
    if key and text.startswith("Could not append"):
        return f"+{key}: {key} is there already; set it without the +"
    if isinstance(error.__cause__, OmegaConfBaseException) and text.startswith("Error merging override "):
        return explain_value(text.removeprefix("Error merging override "), error.__cause__)
    if text.startswith("In '"):
        return _fault_in_file(text)
    if key or not isinstance(error, HydraException):
        for override in _all_parsed(overrides):
            if fault := _fault_of_value(override):
                return fault
        for word in overrides:
            if "=" in word and _parsed(word) is None:
                return f"{_short(word)}: cannot be read ({_one_line(text)})"
    return _one_line(text) or type(error).__name__


def fault_of_choices(overrides: Sequence[str]) -> str | None:
    """What is wrong with the first choice of a file that cannot be, other than that there is no such file.

    A list is among them: Hydra would lay one file over the other, and call the outcome by neither's name. So are
    settings with a dash before them, and such that are deleted.
    """
    faults = (*map(_fault_of_dash, overrides), *map(_fault_of_choice, _all_parsed(overrides)))
    return next(filter(None, faults), None)


def explain_value(assignment: str, error: Exception) -> str:
    """Why OmegaConf does not take `key=value`: by the setting's own rule, where it has one."""
    key = assignment.lstrip("+~").partition("=")[0]
    if assignment.startswith("~"):
        return _fault_of_deletion(assignment, key)
    override = _parsed(assignment)
    if override is not None and (fault := _fault_of_value(override)):
        return fault
    if "=" in assignment and key not in _known_keys():
        return f"{_short(key)}: {no_such_key(key)}"
    return f"{_short(assignment)}: {_one_line(str(error).partition(chr(10))[0]).rstrip('.')}."


def no_such_key(key: str) -> str:
    """What to say of a key that the schema does not have."""
    if ".custom." in key:
        return f"there is no such argument. A part of your own gets another with +{key}=..., beside its _target_."
    if isinstance(rule_at(Config, key.rpartition(".")[0]), TextByName):
        return f"it is not there yet; add it with +{key}=..."
    if key.startswith("hydra."):
        return f"Hydra has no such key. `{LAUNCH} --cfg hydra` lists all of its keys."
    return f"there is no such key.{_near(key, _known_keys())} `{LAUNCH} --cfg job` lists all keys."


def _all_parsed(words: Sequence[str]) -> list[Override]:
    return [override for word in words if (override := _parsed(word)) is not None]


def _parsed(word: str) -> Override | None:
    try:
        [override] = OverridesParser.create().parse_overrides([word])
    except Exception:  # not for us: Hydra says what is wrong with it, or it is no override at all
        return None
    return override


def _fault_of_dash(word: str) -> str | None:
    """What is wrong with `-batch=16` and `--batch=16`."""
    setting = word.lstrip("-")
    key = setting.partition("=")[0]
    if setting == word or "=" not in word or not (key in _known_keys() or _options(key)):
        return None
    return f"{_short(word)}: settings have no dash before them; write {_short(setting)}"


def _fault_of_deletion(line: str, key: str) -> str:
    return f"{_short(line)}: a setting cannot be deleted; set it to another value with {key}=..."


def _fault_of_choice(override: Override) -> str | None:
    """What is wrong with the choice of a file: `experiment=[1]`, `model=null`."""
    key, line = override.key_or_group, _short(override.input_line or "")
    if not key:
        return f"{line}: cannot be read. Write KEY=VALUE."
    if override.is_delete() and (key in _known_keys() or _options(key)):
        return _fault_of_deletion(line, key)
    if override.is_delete() or override.is_sweep_override() or not _options(key):
        return None
    value = override.value()
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        if key == "experiment":  # of which each may set what the ones before it leave
            return None
        is_swept = len(value) > 1 and key not in HYDRAS_CHOICES
        instead = f"-m {key}={_short(','.join(value))} launches each" if is_swept else f"write {key}=NAME"
        return f"{line}: {key} is one choice; {instead}"
    if isinstance(value, str):
        return None
    if isinstance(value, dict) and any(known.startswith(f"{key}.") for known in _known_keys()):
        return None  # settings of the group, which OmegaConf has its own word on
    return f"{line}: {key} is chosen by name; use one of {', '.join(_options(key))}"


def _fault_of_value(override: Override) -> str | None:
    """What is wrong with the value of a setting, where OmegaConf or the setting's rule do not take it."""
    key, line = override.key_or_group, override.input_line or ""
    if override.is_delete() or override.is_sweep_override():
        return None
    owner, _, name = key.rpartition(".")
    if isinstance(rule_at(Config, owner), TextByName):
        instead = way_out(Config, owner, {name: override.value()})
        return f"{_short(line)}: {owner}: {instead}" if instead else None
    if key not in _known_keys():
        return None
    inner = [name for name in _known_keys() if name.startswith(f"{key}.")]
    if inner:
        if isinstance(override.value(), dict) or override.value() in _options(key):
            return None
        choose = f"choose a file of conf/{key.replace('.', '/')} with {key.replace('.', '/')}=NAME, or "
        choose = choose if _options(key.replace(".", "/")) else ""
        return f"{_short(line)}: {key} has settings of its own; {choose}set one of them, such as {inner[0]}."
    if "${" in line or "???" in line:
        return None
    try:
        OmegaConf.update(OmegaConf.structured(Config), key, override.value(), merge=True)
    except Exception:  # whatever it is that OmegaConf says: the rule says it better
        instead = way_out(Config, key, override.value())
        asked = line if len(line) <= MOST_SHOWN else f"{key}={shown(override.value())}"
        return f"{_short(asked)}: {instead}" if instead else None
    return None


def _no_such_option(missing: str, known: Sequence[str] | None, text: str) -> str:
    group, _, option = missing.rpartition("/")
    options = sorted(known or _options(group))
    if not options:
        return _one_line(text.partition("\n")[0])
    near = _did_you_mean(difflib.get_close_matches(option, options, cutoff=0.4))
    return f"{_short(f'{group}={option}')}: there is no such option.{near} Choose from: {', '.join(options)}."


def _options(group: str) -> list[str]:
    """What a key chooses from by name: `model`, `model/backbone`; none for other keys."""
    if group in HYDRAS_CHOICES:
        return sorted(HYDRAS_CHOICES[group])
    if not re.fullmatch(r"\w+(/\w+)*", group):
        return []
    folders = [conf / group for conf in (CONF, own_conf()) if conf is not None]
    return sorted({file.stem for folder in folders if folder.is_dir() for file in folder.glob("*.yaml")})


def _fault_in_file(text: str) -> str:
    """`In 'cluster/mine': ...`: what OmegaConf has against a file of conf/."""
    file = text.partition("'")[2].partition("'")[0]
    if re.search(r"\bfull_key: experiment\b|@experiment\.", text):
        return f"{file}.yaml: its first line has to be `# @package _global_`, so that it can set all that a launch can"
    found = re.search(r"^\s*full_key: (\S+)", text, re.MULTILINE)
    if not found and "Merge error" in text:
        return f"{file}.yaml: it has to be settings by name, as in `name: mine`"
    if not found:
        return _one_line(text)
    key = found[1]
    if key not in _known_keys():
        return f"{file}.yaml: {key}: {no_such_key(key)}"
    value = re.search(r"[Vv]alue '(.*)' of type", text)
    instead = way_out(Config, key, value[1] if value else None)
    return f"{file}.yaml: {key}{f'={value[1]}' if value else ''}: {instead or _one_line(text.splitlines()[1])}"


def _quoting_hint(override: str) -> str:
    """Hydra's own grammar gives a meaning to many characters that paths have."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        return " Write KEY=VALUE."
    if key != key.strip() or value != value.lstrip():
        return f" Write it without spaces around =: {_short(key.strip())}={_short(value.strip())}"
    quoted = value.replace("'", "\\'")
    return f" Its value has characters that Hydra reads as grammar; quote it twice: \"{key}='{_short(quoted)}'\""


def _quoted_key(text: str) -> str | None:
    """The key in Hydra's "Could not override 'key'." and its like."""
    for opening in ("Could not override '", "Could not append to config. An item is already at '"):
        if text.startswith(opening):
            return text[len(opening) :].partition("'")[0]
    return None


def _near(key: str, known: list[str]) -> str:
    """` Did you mean ...?`, or nothing. Also by the last part of a key: momentun is near optimizer.momentum."""
    exact = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    if exact:
        return _did_you_mean(exact)
    by_last_part = {name.rpartition(".")[2]: name for name in reversed(known)}
    last_parts = difflib.get_close_matches(key.rpartition(".")[2], list(by_last_part), cutoff=0.75)
    return _did_you_mean([*difflib.get_close_matches(key, known), *(by_last_part[part] for part in last_parts)])


def _did_you_mean(near: list[str]) -> str:
    unique = list(dict.fromkeys(near))[:3]
    return f" Did you mean {' or '.join(unique)}?" if unique else ""


def _known_keys() -> list[str]:
    return ["experiment", *_keys_of(Config)]


def _keys_of(schema: type[Any], prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(schema)
    for field in fields(schema):
        yield prefix + field.name
        if is_dataclass(hints[field.name]):
            yield from _keys_of(hints[field.name], f"{prefix}{field.name}.")


def _one_line(text: str) -> str:
    return _short(" ".join(text.split()))


def _short(text: str) -> str:
    """Printable, and not longer than a line or two."""
    text = printable(text)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
