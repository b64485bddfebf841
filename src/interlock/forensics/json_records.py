"""JSON records out of lines, one at a time: JSON lines, an array of records, or one pretty-printed document.

JSON lines stream; only a document that begins with a bare bracket on a line of its own is read whole.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from interlock.forensics.traces import Broken, BrokenRecord, RecordedRun

__all__ = ["each_run", "json_records"]

# What a JSON document written over several lines begins with; a line of JSON lines never is as short.
_OPENINGS = (b"[", b"{", b"[{", b"[[")
# What a damaged or truncated gzip file raises while it is read.
_UNREADABLE = (OSError, EOFError, zlib.error)


def json_records(lines: Iterable[bytes]) -> Iterator[tuple[int, Any] | Broken]:
    """Yield (position from 1, record), or what is broken at that place."""
    numbered = _numbered(lines)
    for item in numbered:
        if isinstance(item, Broken):
            yield item
            continue
        number, line = item
        if number == 1 and line in _OPENINGS:
            yield from _document(line, numbered)
            return
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Broken(number, f"not JSON: {_short(error)}")
            continue
        if number == 1 and _is_array_of_records(record):
            yield from enumerate(record, start=1)
        else:
            yield number, record


def each_run(lines: Iterable[bytes], parse: Callable[[Any], RecordedRun]) -> Iterator[RecordedRun | Broken]:
    """Yield what `parse` makes of each record, and a `Broken` for each it cannot read."""
    for item in json_records(lines):
        if isinstance(item, Broken):
            yield item
            continue
        position, record = item
        try:
            yield parse(record)
        except BrokenRecord as error:
            yield Broken(position, str(error))
        except Exception as error:
            # A foreign record may be wrong in ways no reader foresees; the count must still be right.
            yield Broken(position, f"{type(error).__name__}: {_short(error)}")


def _numbered(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes] | Broken]:
    """Number the lines that hold something; a file that cannot be read further ends with a `Broken`."""
    number = 0
    try:
        for line in lines:
            stripped = line.strip().removeprefix(b"\xef\xbb\xbf")
            if stripped:
                number += 1
                yield number, stripped
    except _UNREADABLE as error:
        yield Broken(number + 1, f"the file cannot be read further: {_short(error)}")


def _document(first: bytes, rest: Iterator[tuple[int, bytes] | Broken]) -> Iterator[tuple[int, Any] | Broken]:
    parts = [first]
    for item in rest:
        if isinstance(item, Broken):
            yield item
            return
        parts.append(item[1])
    try:
        document = json.loads(b"\n".join(parts))
    except (ValueError, RecursionError) as error:
        yield Broken(0, f"not JSON: {_short(error)}")
        return
    if _is_array_of_records(document):
        yield from enumerate(document, start=1)
    else:
        yield 1, document


def _is_array_of_records(value: Any) -> bool:
    """Whether this is an array of records, not a bare list of chat messages (which is one record)."""
    return isinstance(value, list) and not (value and isinstance(value[0], dict) and "role" in value[0])


def _short(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"
