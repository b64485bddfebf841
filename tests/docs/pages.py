"""The pages of the documentation, read as data: fenced blocks, headings, links, commands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
RUNBOOKS = tuple(sorted((ROOT / "src/interlock/runbooks").glob("*.md")))

FENCE = re.compile(r"^(```+)(.*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words after it (`runnable`, `output`, `continued`), its text and place."""

    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    kept, fence = [], None
    for line in page.read_text(encoding="utf-8").splitlines():
        match = FENCE.match(line)
        if fence is None and match:
            fence = match[1]
        elif fence is not None:
            fence = None if line.strip() == fence else fence
        else:
            kept.append(line)
    return "\n".join(kept)


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    fence, info, start, text = "", "", 0, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        match = FENCE.match(line)
        if not fence and match:
            fence, info, start, text = match[1], match[2].strip(), number, []
        elif fence and line.strip() == fence:
            language, *words = info.split() or [""]
            found.append(Block(page, start, language, tuple(words), "\n".join(text) + "\n"))
            fence = ""
        elif fence:
            text.append(line)
    assert not fence, f"{page}: the fence of line {start} is not closed"
    return tuple(found)


def commands(page: Path) -> list[str]:
    """Every `interlock …` command that a page shows, in blocks of shell and inside sentences."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    found = [line.strip().removeprefix("$ ") for line in lines]
    found += re.findall(r"`(interlock [^`\n]+)`", prose(page))
    return [command for command in found if command.startswith("interlock ")]
