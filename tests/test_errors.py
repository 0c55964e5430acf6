"""What programs do where nobody reads their words, or cannot be shown all of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SAYS = "from megdet.errors import outlive_closed_pipes; outlive_closed_pipes(); print('37.0 \\u00b1 0.1 \\u2013')"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "37.0 \u00b1 0.1 \u2013\n"), ("latin-1", "37.0 \u00b1 0.1 ?\n"), ("ascii", "37.0 ? 0.1 ?\n")],
)
def test_a_character_that_an_encoding_lacks_is_a_question_mark(encoding: str, shown: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", SAYS],
        env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert said.stdout == shown.encode(encoding)
