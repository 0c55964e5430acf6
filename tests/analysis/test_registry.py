"""Tables register like figures: a module with a RECIPE, and a word in the list."""

from __future__ import annotations

import csv
import io
import pkgutil
import re
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

from megdet.analysis import make_tables, tables
from megdet.analysis.tables.recipe import Recipe
from megdet.analysis.tables.registry import PAPER_TABLES, TABLES
from tests.runs.fabricate import fabricate_run

GUIDE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def test_every_module_with_a_recipe_is_in_the_list_under_its_name() -> None:
    modules = [import_module(f"megdet.analysis.tables.{found.name}") for found in pkgutil.iter_modules(tables.__path__)]
    recipes = [module.RECIPE for module in modules if hasattr(module, "RECIPE")]
    assert len(recipes) >= 6 and all(TABLES[recipe.name] is recipe for recipe in recipes)
    assert list(PAPER_TABLES) == ["1", "2", "3", "4"]


def test_the_guides_example_is_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section = GUIDE.read_text().partition("## Add a table\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^ *```python\n(.*?)^ *```$", section, re.DOTALL | re.MULTILINE)
    module: dict[str, object] = {"__name__": "example"}
    exec(compile(textwrap.dedent(code), str(GUIDE), "exec"), module)
    recipe = module["RECIPE"]
    assert isinstance(recipe, Recipe)
    monkeypatch.setitem(TABLES, recipe.name, recipe)
    fabricate_run(tmp_path, {"batch": 16})
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 0}, status="diverged", epochs=2)
    assert make_tables.main(["--from", str(tmp_path), "--table", recipe.name, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    # The loss of a fabricated run is 1 / epoch, and its last epoch the eleventh.
    assert [(row["Row"], row["Loss"]) for row in rows] == [("16, BN 16", "0.091"), ("64, frozen BN", "failed")]


def test_a_table_that_runs_have_nothing_for_is_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TABLES, "empty", Recipe("empty", lambda group: None))
    fabricate_run(tmp_path, {"batch": 16})
    assert make_tables.main(["--from", str(tmp_path), "--table", "empty"]) == 2
    assert capsys.readouterr().err == "make_tables: --table empty: the runs have nothing to show in it yet\n"
