"""One self-contained HTML page of a sweep, or of all runs: tables, figures, plans, failures and provenance.

    python analysis/make_report.py                            the runs in ./runs, into results/report.html
    python analysis/make_report.py sweep=table3               those of one sweep
    python analysis/make_report.py --from http://host:5000 data=shapes --out report.html

The figures are in the page as SVG and nothing is loaded from elsewhere, so the file can be mailed or kept.
"""

from __future__ import annotations

import argparse
import html
import io
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from megdet.analysis.figures.pictures import with_jpegs
from megdet.analysis.frames import EPOCHS, STEPS, read_runs
from megdet.analysis.make_figures import FIGURES, figures_of
from megdet.analysis.make_tables import tables_of
from megdet.analysis.options import add_run_options, program_of, wanted_of, write_text
from megdet.analysis.page import page
from megdet.analysis.provenance import provenance_of
from megdet.analysis.render import html_tables
from megdet.analysis.report.failures import failures_html
from megdet.analysis.report.plans import plans_table
from megdet.analysis.run_frames import RunFrames
from megdet.analysis.tables.registry import TABLES
from megdet.analysis.wanted import select
from megdet.errors import UserError
from megdet.settings.counted import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COMMAND = "python analysis/make_report.py"


def main(arguments: Sequence[str] | None = None, *, command: str = COMMAND) -> int:
    """Run the command line, in whose help the program is called `command`; the exit code."""
    parsed = _parser(command).parse_intermixed_args(arguments)
    try:
        wanted = wanted_of(parsed)
        epochs = dict.fromkeys((*EPOCHS, *(name for recipe in TABLES.values() for name in recipe.epochs)))
        runs = select(read_runs(parsed.source, epochs=tuple(epochs), steps=STEPS), **wanted)
        made = datetime.now(UTC).isoformat(sep=" ", timespec="minutes")[:16]
        text = report(runs, title=" ".join(parsed.wanted) or "all runs", made=made)
        write_text(parsed.out, text)
    except UserError as error:
        print(f"{program_of(command)}: {error}", file=sys.stderr)
        return 2
    return 0


def report(runs: RunFrames, *, title: str, made: str) -> str:
    """The page on `runs`; `title` says which they are, `made` when."""
    tables = tables_of(runs, TABLES.values())
    provenance = [made_of for table in tables if (made_of := provenance_of(table)) is not None]
    drawn = [(f"{name}-{place}", each) for name in FIGURES for place, each in enumerate(figures_of(runs, name))]
    sections = {
        "Tables": html_tables(tables),
        "Figures": "\n".join(inline_svg(figure, name) for name, figure in drawn) or "<p>No run has an epoch yet.</p>",
        "Plans": html_tables([plans_table(runs)]),
        "Failures": failures_html(runs),
        "Provenance": html_tables(provenance) or "<p>No table shows a run yet.</p>",
    }
    heading = f"megdet: {title}"
    links = " · ".join(f'<a href="#{name.lower()}">{name}</a>' for name in sections)
    body = [f"<h1>{html.escape(heading)}</h1>", f"<p>{counted(len(runs.runs), 'run')}; made {made} UTC. {links}</p>"]
    for name, text in sections.items():
        body += [f'<section id="{name.lower()}">', f"<h2>{name}</h2>", text, "</section>"]
    return page(heading, "\n".join(body))


def inline_svg(figure: Figure, name: str) -> str:
    """The figure as an element of a page. Its ids begin with `name`: figures drawn alike would share them."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = with_jpegs(text.getvalue()[text.getvalue().index("<svg") :])
    svg = re.sub(r'\bid="', f'id="{name}.', svg)
    svg = re.sub(r'href="#', f'href="#{name}.', svg).replace("url(#", f"url(#{name}.")
    label = name.rpartition("-")[0].replace("_", " ")
    return "<figure>\n" + svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1) + "</figure>"


def _parser(command: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    description = (__doc__ or "").replace(COMMAND, command)
    parser = argparse.ArgumentParser(prog=command, description=description, formatter_class=raw)
    add_run_options(parser)
    parser.add_argument("--out", type=Path, default=Path("results/report.html"), help="default: results/report.html")
    return parser
