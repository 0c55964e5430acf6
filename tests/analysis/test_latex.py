from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from megdet.analysis import make_tables
from megdet.analysis.latex import LINES_ON_A_PAGE, latex
from megdet.analysis.tables import Row, Table
from tests.analysis.ratios import with_ratios
from tests.analysis.test_studies import with_studies
from tests.runs.fabricate import fabricate_run

NASTY = '50% of #1 & $x_1^2$ {a} \\b ~ ± † \N{EN DASH} <>|" größe, señor, 日本 [c]'
DOCUMENT = r"""\documentclass[a4paper]{article}
\usepackage{graphicx,array}
\begin{document}
\input{tables}
\end{document}
"""
needs_tex = pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="no TeX here; Debian and Ubuntu: apt-get install texlive-latex-base"
)


def compiled(tables: str, folder: Path) -> str:
    """TeX's log of a document that holds the tables. Fails where TeX does, or where something does not fit a page."""
    (folder / "tables.tex").write_text(tables)
    (folder / "document.tex").write_text(DOCUMENT)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "document.log").read_text(errors="replace")


def complaints(log: str) -> list[str]:
    """What does not fit the page or has no glyph."""
    return re.findall(r"^(?:Overfull.*|.*Float too large.*|Missing character.*|LaTeX Warning: (?!Label).*)$", log, re.M)


def a_sweep(runs: Path, **also: object) -> None:
    """Runs for every table: seeds, a divergence, two commits, a long name, a study."""
    for seed in range(3):
        with_ratios(fabricate_run(runs, {"batch": 16, "seed": seed, **also}, commit=f"{seed}" * 40), rpn=1, roi=2)
        fabricate_run(runs, {"batch": 256, "bn_size": 32, "seed": seed, **also}, mmAP=36.0 + seed)
    fabricate_run(runs, {"batch": 64, "bn_size": 0, **also}, status="diverged", epochs=1)
    fabricate_run(runs, {"batch": 16, "bn_size": 0, **also}, status="running", epochs=1)
    with_studies(fabricate_run(runs, {"batch": 32, "bn_size": 32, **also}))


def test_every_special_character_is_escaped_and_environments_are_balanced() -> None:
    made = latex([Table(f"Table 9: {NASTY}", NASTY, ("a_b", "c"), (Row((NASTY, "-0.3"), (NASTY,)), Row((None, None))))])
    begun, ended = (re.findall(rf"\\{word}\{{(\w+)\}}", made) for word in ("begin", "end"))
    assert begun == ["table", "tabular"] and ended == ["tabular", "table"]
    assert r"& $-$0.3 \\" in made and r"-- & -- \\" in made and made.isascii()
    assert r"50\% of \#1 \& \$x\_" in made and r"gr\"{o}\ss{}e, se\~{n}or, U+65E5U+672C [c]" in made


def test_the_caption_is_the_title_without_its_number_and_the_rest_is_below() -> None:
    made = latex([Table(title, "some", ("a",), (), about="Read so.") for title in ("Table 9: Name", "Provenance")])
    assert re.findall(r"\\caption\{(.*)\}", made) == ["Name. Runs: some.", "Provenance. Runs: some."]
    assert made.count("Read so. mmAP: COCO") == 2


def test_a_table_longer_than_a_page_goes_on_in_another() -> None:
    rows = tuple(Row((str(place),), ("noted",)) for place in range(LINES_ON_A_PAGE + 1))
    made = latex([Table("Long", "some", ("a",), rows, about="Read so.")])
    assert made.count(r"\begin{table}") == 2 and "Long (continued). Runs" in made and made.count("Read so.") == 1
    assert all(f"\n{place} \\\\" in made for place in range(LINES_ON_A_PAGE + 1))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--provenance"],
        ["--against", "other [50%] & größe_~^日本 #1"],
        ["--table", "bn", "--provenance"],
        ["--table", "variance", "--against", "other [50%] & größe_~^日本 #1"],
    ],
    ids=["provenance", "against", "bn", "variance"],
)
@pytest.mark.slow
@needs_tex
def test_all_tables_compile_and_fit_the_page(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_sweep(tmp_path / "runs")
    a_sweep(tmp_path / "other [50%] & größe_~^日本 #1", precision="bf16")
    monkeypatch.chdir(tmp_path)
    assert make_tables.main(["--format", "latex", "--out", "made.tex", *arguments]) == 0
    assert complaints(compiled((tmp_path / "made.tex").read_text(), tmp_path)) == []


@pytest.mark.slow
@needs_tex
def test_any_printable_text_compiles_and_the_check_sees_what_does_not_fit(tmp_path: Path) -> None:
    characters = "".join(map(chr, [*range(32, 127), *range(160, 592), *range(0x2010, 0x2060), 0x20AC, 0x2264, 0x1F600]))
    parts = [characters[start : start + 8] for start in range(0, len(characters), 8)]
    table = Table("Any", "some", ("a", "b"), tuple(Row((part, part[:1])) for part in parts))
    assert complaints(compiled(latex([table]), tmp_path)) == []
    assert complaints(compiled(r"\noindent\rule{2\textwidth}{1cm}", tmp_path)) != []
