from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from megdet.analysis import make_tables
from megdet.analysis.cells import decimals
from megdet.analysis.latex import LINES_ON_A_PAGE, latex
from megdet.analysis.table import Column, Kind, Row, Table, table_of
from tests.analysis.ratios import with_ratios
from tests.analysis.test_studies import with_studies
from tests.runs.fabricate import fabricate_run

NASTY = '50% of #1 & $x_1^2$ {a} \\b ~ ± † \N{EN DASH} <>|" größe, señor, 日本 [c]'
DOCUMENT = r"""\documentclass[a4paper]{article}
\usepackage{graphicx,array}
%s
\begin{document}
\input{tables}
\end{document}
"""
needs_tex = pytest.mark.skipif(
    not shutil.which("pdflatex"), reason="no TeX here; Debian and Ubuntu: apt-get install texlive-latex-base"
)


def compiled(tables: str, folder: Path, *, booktabs: bool = False) -> str:
    """TeX's log of a document that holds the tables. Fails where TeX does, or where something does not fit a page."""
    (folder / "tables.tex").write_text(tables)
    (folder / "document.tex").write_text(DOCUMENT % (r"\usepackage{booktabs}" if booktabs else ""))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "document.log").read_text(errors="replace")


def has_booktabs() -> bool:
    """Debian and Ubuntu have it in texlive-latex-recommended."""
    found = subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, text=True, timeout=60)
    return bool(found.stdout.strip())


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


def a_table(
    title: str, rows: Sequence[Row], *, shown: str = "some", headings: Sequence[str] = ("a",), label: str = ""
) -> Table:
    columns = [Column(heading, Kind.NAMING) for heading in headings]
    return table_of(title, shown, columns, rows, about="Read so.", label=label)


def test_every_special_character_is_escaped_and_environments_are_balanced() -> None:
    rows = [Row(("one",), (NASTY, "-0.3"), (NASTY,)), Row(("two",), (None, None))]
    made = latex([a_table(f"Table 9: {NASTY}", rows, shown=NASTY, headings=("a_b", "c"))])
    begun, ended = (re.findall(rf"\\{word}\{{(\w+)\}}", made) for word in ("begin", "end"))
    assert begun == ["table", "tabular"] and ended == ["tabular", "table"]
    assert r"& $-$0.3 \\" in made and r"-- & -- \\" in made and made.isascii()
    assert r"50\% of \#1 \& \$x\_" in made and r"gr\"{o}\ss{}e, se\~{n}or, U+65E5U+672C [c]" in made


def test_the_caption_is_the_title_without_its_number_and_the_rest_is_below() -> None:
    made = latex([a_table(title, []) for title in ("Table 9: Name", "Provenance")])
    assert re.findall(r"\\caption\{(.*)\}", made) == ["Name. Runs: some.", "Provenance. Runs: some."]
    assert made.count("Read so. mmAP: COCO") == 2


def test_a_table_longer_than_a_page_goes_on_in_another() -> None:
    rows = [Row((place,), (str(place),), ("noted",)) for place in range(LINES_ON_A_PAGE + 1)]
    made = latex([a_table("Long", rows)])
    assert made.count(r"\begin{table}") == 2 and "Long (continued). Runs" in made and made.count("Read so.") == 1
    assert all(f"\n{place} \\\\" in made for place in range(LINES_ON_A_PAGE + 1))


def test_rules_are_those_of_booktabs_and_the_best_number_is_bold() -> None:
    columns = [Column("a", Kind.NAMING), Column("b", Kind.MEASURED, decimals(1), better="up")]
    made = latex([table_of("T", "some", columns, [Row((x,), (str(x), x)) for x in (1.0, 2.04, 2.0)])])
    assert [made.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\hline")] == [2, 2, 2, 3]
    assert r"1.0 & 1.0 \\" in made and r"2.04 & \textbf{2.0} \\" in made and r"2.0 & \textbf{2.0} \\" in made


def test_each_table_has_a_label_of_its_own() -> None:
    rows = [Row((place,), (str(place),)) for place in range(LINES_ON_A_PAGE + 1)]
    made = latex(
        [a_table("T", rows, label="table3"), a_table("T", [], label="table3"), a_table("T", [], label="my x_1")]
    )
    assert re.findall(r"\\label\{(.*?)\}", made) == ["tab:table3", "tab:table3-2", "tab:my-x-1"]


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
    for booktabs in {False, has_booktabs()}:
        assert complaints(compiled((tmp_path / "made.tex").read_text(), tmp_path, booktabs=booktabs)) == []


@pytest.mark.slow
@needs_tex
def test_any_printable_text_compiles_and_the_check_sees_what_does_not_fit(tmp_path: Path) -> None:
    characters = "".join(map(chr, [*range(32, 127), *range(160, 592), *range(0x2010, 0x2060), 0x20AC, 0x2264, 0x1F600]))
    parts = [characters[start : start + 8] for start in range(0, len(characters), 8)]
    table = a_table("Any", [Row((part,), (part, part[:1])) for part in parts], headings=("a", "b"))
    assert complaints(compiled(latex([table]), tmp_path)) == []
    assert complaints(compiled(r"\noindent\rule{2\textwidth}{1cm}", tmp_path)) != []
