"""What verbs print: one JSON document with `--json`, else tables; notes and progress go to stderr.

Names and reasons come from stores, and there from models: nothing of them may move a terminal's cursor.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

__all__ = ["Cell", "ago", "clean", "code", "command", "note", "print_json", "print_table", "print_text", "usd", "when"]

# A cell: its text, and how it looks ("" is plain).
Cell = str | tuple[str, str]

WIDTH_OF_A_PIPE = 200
# After the user, and as a parameter.
_PASSWORD = re.compile(r"(?<=//)(?P<user>[^/@:?]*):[^/@]*(?=@)|(?<=[?&])(?:ssl)?password=[^&]*&?")
_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def print_json(data: Any) -> None:
    """Print one JSON document; bytes are written in hexadecimal."""
    text = orjson.dumps(data, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)
    sys.stdout.write(text.decode() + "\n")


def print_text(*parts: Cell) -> None:
    """Print one line made of parts, each with its look."""
    from rich.text import Text  # noqa: PLC0415 - only who prints pays for it

    line = Text()
    for part in parts:
        text, style = part if isinstance(part, tuple) else (part, "")
        line.append(clean(text), style)
    _console().print(line, soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table; columns named in `numbers` stand to the right."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        cells = [cell if isinstance(cell, tuple) else (cell, "") for cell in row]
        table.add_row(*(Text(clean(text), style) for text, style in cells))
    _console().print(table)


def note(text: str) -> None:
    """Say something beside the result, on stderr."""
    sys.stderr.write(clean(text) + "\n")


def command(store: str | None, *words: str) -> str:
    """Return a command to type, on the same store that was named with `--store`: without a password in its URL.

    What prints lands in logs and tickets; PostgreSQL takes the password from PGPASSWORD or a `.pgpass` as well.
    """
    named = () if store is None else ("--store", _PASSWORD.sub(lambda found: found["user"] or "", store))
    return shlex.join(("interlock", *words, *named))


def code(text: str) -> Cell:
    """Return a command to type, as a cell."""
    return text, "cyan"


def clean(text: str) -> str:
    """Return `text` without characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def when(at_s: float | None) -> str:
    """Return a moment (Unix seconds) in UTC, to the second."""
    return "" if at_s is None else datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def ago(seconds: float) -> str:
    """Return a length of time in its largest unit: `3 min`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "now"


def usd(value: Any) -> str:
    """Return dollars; a dash where the price is not known."""
    return f"${value:.4f}" if isinstance(value, int | float) else "-"


def _console() -> Any:
    from rich.console import Console  # noqa: PLC0415

    # A pipe has no width of its own: nothing there may be folded or cut.
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_A_PIPE)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError
