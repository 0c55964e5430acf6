"""Names that mean something to a shell, a path, a page, a spreadsheet or a terminal stay names, or are refused."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from megdet.analysis.cells import decimals
from megdet.analysis.make_figures import main as make_figures
from megdet.analysis.make_tables import main as make_tables
from megdet.analysis.render import FORMATS
from megdet.analysis.table import Column, Kind, Row, Table, table_of
from megdet.cli import main as megdet
from megdet.config.experiments import Asked
from megdet.config.schema import Config
from megdet.launchers.local.launcher import LocalLauncher
from megdet.launchers.local.machine import Machine
from megdet.runs.folder import folder_of
from megdet.sweep.plan_table import print_table
from megdet.sweep.points import plan_points
from tests.runs.fabricate import fabricate_run

NASTY = [
    "a b", "it's", 'a "b"', "Ünï·çödé", "\u202egnp.exe", "a\nb", "a\r\nb", "$(touch pwned)", "`touch pwned`",
    "; touch pwned", "| touch pwned", "&& touch pwned", "../../pwned", "/tmp/pwned", "..", "~/pwned",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "![x](http://h/x.png)", "=cmd()",
    "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\uff1d1+1", "\x1b[2J\x1b[31mred", "\x9b31m", "\x07", "\x00",
    "a\\b", "%2e%2e%2fpwned", "' OR 1=1 --",
    r"\input{/etc/passwd}", r"\write18{touch pwned}", "$x^{$", "a & b", "50%", "#1", "x" * 300,
]  # fmt: skip
NAMES = [
    "schedule.name",
    "model.name",
    "model.backbone.name",
    "model.norm.name",
    "optimizer.name",
    "data.name",
    "cluster.name",
]
TEXTS = ["tracking.experiment", "data.root", "runs_dir", "cluster.partition", "cluster.account", "cluster.mail_user"]


def with_setting(key: str, value: Any) -> Config:
    config = Config()
    config.tracking.enabled = False
    place: Any = config
    *path, name = key.split(".")
    for part in path:
        place = getattr(place, part)
    setattr(place, name, value)
    if key in ("model.backbone.name", "model.norm.name", "optimizer.name"):
        place.custom = {"_target_": "a.B"}
    return config


def shown_id(text: str) -> str:
    return ascii(text[:24])


@pytest.mark.parametrize("name", NASTY, ids=shown_id)
def test_no_setting_takes_a_run_out_of_its_folder_or_puts_odd_characters_into_its_id(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [Asked((f"{key}={name}",), with_setting(key, name)) for key in (*NAMES, *TEXTS)]
    for point in plan_points(asked, to_run_here=False, launcher=LocalLauncher(Machine((), 2))):
        if point.plan is None:
            assert name.isprintable() or name not in point.why, "a message has nothing that a terminal acts on"
            continue
        assert not any(point.asked.overrides[0].startswith(key) for key in NAMES), "names have letters and digits"
        assert re.fullmatch(r"[A-Za-z0-9_.+-]+", point.plan.run_id)
        folder = folder_of(point.plan).path
        assert folder.parent == Path(point.plan.config.runs_dir) and folder.name == point.plan.run_id
        assert name.isprintable(), "no line ends and no control characters reach a plan"
    assert list(tmp_path.iterdir()) == [], "nothing ran, nothing was made"


def nasty_table(name: str) -> Table:
    columns = [Column(name or "x", Kind.NAMING), Column("mmAP", Kind.MEASURED, decimals(1))]
    return table_of(name, name, columns, [Row((1,), (name, 36.0), (name,))], about=f"About {name}.", legend=f"{name}.")


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [key for key, _ in attrs if key.startswith("on")]


PLAIN_TAGS = Tags(FORMATS["html"]([nasty_table("plain")])).tags


@pytest.mark.parametrize("name", NASTY, ids=shown_id)
def test_tables_show_names_and_no_format_reads_anything_into_them(name: str) -> None:
    table = nasty_table(name)
    page = Tags(FORMATS["html"]([table]))
    assert page.tags == PLAIN_TAGS and not page.handlers
    text = FORMATS["markdown"]([table])
    assert not re.search(r"(?<!\\)<", text) and not re.search(r"(?<!\\)\]\(", text), text
    assert all(line.isprintable() for line in text.split("\n")), text
    for row in csv.reader(io.StringIO(FORMATS["csv"]([table]), newline="")):
        for cell in row:
            assert cell[:1] not in ("=", "@", "\t", "\uff1d"), cell
            assert cell[:1] not in ("+", "-") or re.fullmatch(r"[+-][\d.]+", cell), cell
            assert all(sign.isprintable() or sign in "\n\t" for sign in cell), cell
    tex = FORMATS["latex"]([table])
    assert "\\input{" not in tex.replace(r"To be \input", "") and "\\write" not in tex
    assert all(line.isprintable() for line in tex.split("\n")), tex


@pytest.mark.parametrize("name", ["$x^{$", "$(touch pwned)", r"\\input{x}", "a_b^c", "<b>"], ids=shown_id)
def test_figures_take_no_argument_of_an_own_part_for_mathematics(name: str, tmp_path: Path) -> None:
    for seed, text in enumerate((name, "plain")):
        custom = {"_target_": "a.B", "label": text}
        fabricate_run(tmp_path / "runs", {"optimizer.name": "mine", "optimizer.custom": custom, "seed": seed})
    source, out = str(tmp_path / "runs"), tmp_path / "out"
    assert make_figures(["--from", source, "--out", str(out), "--figure", "loss", "--figure", "validation_curves"]) == 0
    for drawn in out.glob("*.svg"):
        assert "<script" not in drawn.read_text() and "<b>" not in drawn.read_text()
    assert len(list(out.glob("*.svg"))) == 4, "the two optimizers are not comparable"


@pytest.mark.parametrize("name", [name for name in NASTY if name != "\x00"], ids=shown_id)
def test_a_sweep_files_title_labels_and_headings_are_text_in_every_format(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate_run(tmp_path / "runs", {"batch": 64})
    content = {
        "title": name, "label": name, "names": {name: "label"}, "gpus": f"GPUs {name}",
        "measure": {f"{name} mmAP": "mmAP"},
        "rows": [{"ask": {"batch": 64}, "label": name, "note": name, "paper": {f"{name} mmAP": 1.0}}],
    }  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    for form in FORMATS:
        arguments = ["--from", str(tmp_path / "runs"), "--table", str(path), "--format", form]
        code = make_tables(arguments)
        said = capsys.readouterr()
        assert code == 0, said.err
        assert "\x1b" not in said.out and "\x9b" not in said.out and "\x07" not in said.out
        if form == "html":
            page = Tags(said.out)
            assert page.tags <= PLAIN_TAGS | {"strong"} and not page.handlers
        if form == "markdown":
            assert not re.search(r"(?<!\\)<", said.out) and not re.search(r"(?<!\\)\]\(", said.out)


@pytest.mark.parametrize("name", ["\x1b[2J\x1b[31mred", "\x9b31m", "a\rb", "\x07bell", "\u202egnp"], ids=shown_id)
def test_no_terminal_acts_on_what_runs_are_called_or_ended_with(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = fabricate_run(Path("runs"), {"batch": 64}, status="failed", reason=name)
    made.rename(made.with_name(name))
    for words in (["status"], ["why"]):
        assert megdet(words) == 0
        said = capsys.readouterr().out
        assert name not in said and all(line.isprintable() for line in said.split("\n")), ascii(said)
    assert megdet(["logs", f"{name}x"]) == 2
    assert name not in capsys.readouterr().err
    asked = [Asked((f"model.name={name}",), with_setting("model.name", name)), Asked((), Config())]
    print_table(plan_points(asked, to_run_here=False, launcher=LocalLauncher(Machine((), 2))))
    said = capsys.readouterr()
    assert name not in said.out + said.err and all(line.isprintable() for line in said.out.split("\n"))
