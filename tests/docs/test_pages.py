"""The pages beside their commands: their links and paths lead somewhere, and their other blocks are what they say."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from megdet import cli
from tests.docs.pages import COMMANDS, PAGES, ROOT, Block, blocks, files_told, inline_code
from tests.test_launch import launch

LINKED = [*PAGES, ROOT / "CHANGELOG.md"]
FOLDERS = ("megdet", "conf", "sweeps", "analysis", "hydra_plugins", "benchmarks", "tests", "docs", ".ci", ".github")
OTHER_BLOCKS = [block for page in PAGES for block in blocks(page) if block.language not in COMMANDS]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [target for target in targets if "://" not in target]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_of_this_repository_are_there(page: Path) -> None:
    path = re.compile(rf"({'|'.join(map(re.escape, FOLDERS))})/[\w./-]*")
    named = {code for code in inline_code(page) if path.fullmatch(code)} - files_told().keys()
    if "contributing" in page.name.lower():  # deeper paths are examples of files to write
        named = {code for code in named if code.endswith("/") and code.count("/") <= 2}
    assert not [code for code in named if not (ROOT / code).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_are_there(page: Path) -> None:
    known = {*cli.COMMANDS, *cli.DOORS}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for code in inline_code(page):
        match code.split():
            case ["megdet", command, *_] if not command.startswith("-"):
                assert command in known, code
            case ["make", target, *_]:
                assert target in targets, code
            case ["python", "-m", module, *_] if module.startswith(("megdet.", "benchmarks.", "tests.")):
                spec = find_spec(module)
                if spec and spec.submodule_search_locations:  # a package runs by its __main__.py
                    spec = find_spec(f"{module}.__main__")
                assert spec and spec.origin and "__main__" in Path(spec.origin).read_text(), f"{code} does nothing"


@pytest.mark.parametrize("block", OTHER_BLOCKS, ids=lambda block: block.place)
def test_blocks_of_another_language_can_be_read(block: Block) -> None:
    readers = {"yaml": yaml.safe_load, "python": read_python, "json": json.loads, "toml": tomllib.loads}
    readers.get(block.language, str)(block.text)


def read_python(text: str) -> None:
    """Statements, or the arguments of a call."""
    try:
        ast.parse(text)
    except SyntaxError:
        ast.parse(f"f({text})")


def test_a_cluster_that_a_page_describes_is_one(tmp_path: Path) -> None:
    told = {name: text for name, text in files_told().items() if name.startswith("conf/cluster/")}
    assert told, "docs/cluster.md says what to write for a cluster of one's own"
    for name, text in told.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        done = launch(tmp_path, f"cluster={Path(name).stem}", "--cfg", "job", "--package", "cluster")
        assert done.returncode == 0, done.stderr
        composed, written = yaml.safe_load(done.stdout), yaml.safe_load(text)
        assert {key: composed[key] for key in written} == written
