"""What the documentation holds: its blocks, the commands in them, the files it tells to write, and its inline code."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

COMMANDS = ("", "sh", "bash", "shell", "console")
"""The languages of blocks that hold commands; a block without one does."""


@dataclass(frozen=True)
class Block:
    """What stands between two lines of backticks."""

    place: str
    """Page and line, for messages."""
    language: str
    text: str
    above: str
    """The nearest line above it that is not empty."""


@dataclass(frozen=True)
class Command:
    """One command of a block, without what follows && or |."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    above, opened, lines = "", None, []
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        fence = re.match(r" *```(.*)$", line)
        if fence and opened is None:
            opened, lines = (number, fence.group(1).strip()), []
        elif fence and opened:
            yield Block(f"{page.name}:{opened[0]}", opened[1], textwrap.dedent("\n".join(lines)), above)
            opened = None
        elif opened:
            lines.append(line)
        elif line.strip():
            above = line
    assert opened is None, f"{page.name}: a block is not closed"


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a block; where some lines begin with a prompt, `$ `, the others are what they print."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("&|;"):
                if words:
                    yield Command(block.place, tuple(words))
                words = []
            else:
                words.append(word)


def all_commands() -> list[Command]:
    """Of all pages, and of the comments in conf/; each once."""
    blocks_of_commands = [block for page in PAGES for block in blocks(page) if block.language in COMMANDS]
    for file in sorted((ROOT / "conf").rglob("*.yaml")):
        named = re.findall(r"^# +(python .*)$", file.read_text(), re.MULTILINE)
        blocks_of_commands.append(Block(str(file.relative_to(ROOT)), "", "\n".join(named), ""))
    found = (command for block in blocks_of_commands for command in commands_of(block))
    return list({command.words: command for command in found}.values())


def files_told() -> dict[str, str]:
    """The files that the pages tell a reader to write, by path.

    YAML files are named in a block's first line or just above it, Python programs in a comment that is the first line.
    """
    files = {}
    for page in PAGES:
        for block in blocks(page):
            program = re.match(r"# (\w+\.py): ", block.text)
            if block.language == "python" and program:
                files[program[1]] = block.text
            named = re.search(r"\b(?:conf|sweeps)/[\w/-]+\.yaml", f"{block.text.partition(chr(10))[0]}\n{block.above}")
            if block.language == "yaml" and named:
                files[named.group()] = block.text
    return files


def inline_code(page: Path) -> list[str]:
    """The words in single backticks of a page, outside of its blocks."""
    prose = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose)
