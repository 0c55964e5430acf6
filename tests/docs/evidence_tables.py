"""The tables of docs/results.md, made of the records in docs/evidence/.

    python -m tests.docs.evidence_tables     puts those of the records that are there now on the page

They stand there between two comments, of which the first says what is asked of make_tables.py.
"""

from __future__ import annotations

import contextlib
import io
import re

from megdet.analysis import make_tables
from tests.docs.pages import ROOT

PAGE, RECORDS = ROOT / "docs" / "results.md", ROOT / "docs" / "evidence"
BLOCK = re.compile(r"(?P<before><!-- (?P<command>--table .*?) -->\n\n)(?P<table>.*?)(?=\n\n<!-- end -->)", re.DOTALL)


def made(command: str) -> str:
    """What `make_tables.py --from docs/evidence COMMAND` prints, without its heading."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = make_tables.main(["--from", str(RECORDS), *command.split()])
    heading, _, table = printed.getvalue().strip().partition("\n\n")
    assert code == 0 and heading.startswith("### "), f"make_tables {command}: {heading}"
    return table


def main() -> None:
    page = BLOCK.sub(lambda block: block["before"] + made(block["command"]), PAGE.read_text())
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
