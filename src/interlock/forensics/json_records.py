"""JSON records out of pieces of a file, one at a time: what cannot be read is named at its place.

Pieces come from `split.pieces`, or are plain lines; a document over several lines that nobody has cut is read
whole.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson

from interlock.forensics.split import MAX_RECORD_BYTES, TooLong
from interlock.forensics.traces import Broken, BrokenRecord, RecordedRun

__all__ = ["decoded", "each_run", "json_records"]

# What a JSON document written over several lines begins with; a line of JSON lines never is as short.
_OPENINGS = (b"[", b"{", b"[{", b"[[")
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG = b"0" * 19
_NOT_BEFORE_INTEGERS = frozenset({b'"', b".", b"_"})
# Items of a conversation in the Responses form.
_ITEMS = frozenset(
    {
        "message",
        "reasoning",
        "item_reference",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
    }
)
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
        if isinstance(line, TooLong):
            yield Broken(
                number, f"a record of more than {MAX_RECORD_BYTES >> 20} MiB, which begins {bytes(line[:60])!r}"
            )
            continue
        if number == 1 and line in _OPENINGS:
            yield from _document(line, numbered)
            return
        try:
            record = decoded(line)
        except (ValueError, RecursionError) as error:
            yield Broken(number, f"not JSON: {_short(error)}")
            continue
        if number == 1 and _is_array_of_records(record):
            yield from enumerate(record, start=1)
        else:
            yield number, record


def decoded(text: bytes | str) -> Any:
    """Return the value that a JSON text stands for, exactly: integers of any size, NaN and lone surrogates too.

    Raises:
        ValueError: It is not JSON. RecursionError: it is nested too deeply.
    """
    # orjson rounds what does not fit into 64 bits, and refuses what Python's own reader takes.
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if not _has_long_integer(data):
        with contextlib.suppress(ValueError):
            return orjson.loads(data)
    return json.loads(text)


def _has_long_integer(data: bytes) -> bool:
    digits = data.translate(_DIGITS)
    at = digits.find(_LONG)
    while at >= 0:
        before = data[at - 1 : at]
        if before not in _NOT_BEFORE_INTEGERS and not before.isalnum():
            return True
        at = digits.find(_LONG, at + len(_LONG))
    return False


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
            stripped = line if isinstance(line, TooLong) else line.strip().removeprefix(b"\xef\xbb\xbf")
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
        document = decoded(b"\n".join(parts))
    except (ValueError, RecursionError) as error:
        yield Broken(0, f"not JSON: {_short(error)}")
        return
    if _is_array_of_records(document):
        yield from enumerate(document, start=1)
    else:
        yield 1, document


def _is_array_of_records(value: Any) -> bool:
    """Whether this is an array of records, not the messages or items of one conversation (which are one record)."""
    if not isinstance(value, list):
        return False
    first = value[0] if value and isinstance(value[0], dict) else {}
    return "role" not in first and first.get("type") not in _ITEMS


def _short(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"
