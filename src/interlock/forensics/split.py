"""Cuts a file into its records, whatever it is: JSON lines, an array, an object around an array, concatenated texts.

Memory stays that of one record and one buffer: an array of a gigabyte on one line is cut into its elements
without being read whole. A record of more than `MAX_RECORD_BYTES` is handed on as `TooLong`, and the cutting
goes on behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

__all__ = ["MAX_RECORD_BYTES", "Source", "TooLong", "pieces"]

MAX_RECORD_BYTES = 24 << 20
_CHUNK = 1 << 18
_LARGE = 1 << 20
_BOM = b"\xef\xbb\xbf"
# Keys whose array, in a document of its own, holds records rather than the parts of one.
_HOLDERS = frozenset({b"resourceSpans", b"simulations", b"runs", b"traces", b"data", b"records"})
_TOKEN = re.compile(rb'"[^"\\]*(?:\\(?:.|\Z)[^"\\]*)*(?:"|\Z)|[\[\]{}]', re.DOTALL)
# Messages and items of one conversation: a list of these is one record, not many.
_PART = re.compile(
    rb'^\s*\[\s*\{[^{}\[\]]{0,400}?"(?:role"|type"\s*:\s*"(?:message|reasoning|item_reference|(?:function|custom_tool)_call(?:_output)?)")'
)


class Source(Protocol):
    """A binary file."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...


class TooLong(bytes):
    """Stands where a record was that is too long to be read; holds its beginning."""


def pieces(source: Source) -> Iterator[bytes]:
    """Yield the records of a file in order, each as one JSON text; blank space is left out."""
    buffer = _Buffer(source)
    head = buffer.peek(_CHUNK).removeprefix(_BOM).lstrip()
    if head[:1] in {b"[", b"{"}:
        # An object may be a long first line of many, or a document; an array that long is a document in any case.
        while head[:1] == b"{" and b"\n" not in head and len(head) < MAX_RECORD_BYTES and buffer.more():
            head = buffer.data.removeprefix(_BOM).lstrip()
        line, newline, _ = head.partition(b"\n")
        if not newline or not _is_whole(line):
            yield from _documents(buffer)
            return
    yield from _lines(buffer)


def _is_whole(line: bytes) -> bool:
    """Whether the brackets of a line are closed at its end."""
    depth = 0
    for token in _TOKEN.findall(line):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token, 0)
    return depth == 0


class _Buffer:
    """What has been read and not yet taken."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.data = b""
        self.ended = False

    def peek(self, size: int) -> bytes:
        while len(self.data) < size and self.more():
            pass
        return self.data

    def more(self) -> bool:
        """Read on; return whether there was something."""
        # What is appended to again and again is read in larger parts.
        chunk = b"" if self.ended else self._source.read(max(_CHUNK, min(len(self.data), _LARGE)))
        self.ended = not chunk
        self.data += chunk
        return bool(chunk)


def _lines(buffer: _Buffer) -> Iterator[bytes]:
    rest = [buffer.data]
    held = len(buffer.data)
    too_long = b""
    while True:
        *whole, last = b"".join(rest).split(b"\n") if len(rest) > 1 or b"\n" in rest[0] else (rest[0],)
        for line in whole:
            if too_long:
                yield TooLong(too_long)
                too_long = b""
            elif stripped := line.strip().removeprefix(_BOM):
                yield stripped
        rest, held = [last], len(last)
        if held > MAX_RECORD_BYTES:
            too_long = too_long or last[:200]
            rest, held = [b""], 0
        buffer.data = b""
        # A long line is gathered before it is looked through again.
        wanted = held or 1
        while held < 2 * wanted and buffer.more():
            rest.append(buffer.data)
            held += len(buffer.data)
            newline = b"\n" in buffer.data
            buffer.data = b""
            if newline:
                break
        if len(rest) == 1:
            break
    if too_long:
        yield TooLong(too_long)
    elif stripped := rest[0].strip().removeprefix(_BOM):
        yield stripped


def _documents(buffer: _Buffer) -> Iterator[bytes]:
    cutter = _Cutter(buffer)
    while (piece := cutter.next()) is not None:
        yield piece


class _Cutter:
    """Walks through brackets and texts; knows at which depth a record begins and ends."""

    def __init__(self, buffer: _Buffer) -> None:
        self._buffer = buffer
        self._at = 0  # where the walk goes on
        self._start = 0  # where the record, or what has not been handed out, begins
        self._depth = 0
        self._records_at = 0  # a record is what stands at this depth
        self._holder = False  # the document has had its records inside of it: the rest of it is none
        self._key = b""
        self._cut: list[bytes] = []
        self._skipped = b""

    def next(self) -> bytes | None:
        """Return the next record; None at the end."""
        while not self._cut:
            if not self._walk() and not self._cut:
                rest = self._buffer.data[self._start :].strip(b" \t\r\n,]}")
                self._buffer.data, self._start = b"", 0
                return rest if rest and self._depth else None
        return self._cut.pop(0)

    def _walk(self) -> bool:
        """Go through what is in the buffer, reading on first if nothing is left; return whether there was more."""
        buffer = self._buffer
        self._drop()
        if not buffer.more() and self._at >= len(buffer.data):
            return False
        data = buffer.data
        for match in _TOKEN.finditer(data, self._at):
            token = match[0]
            first = token[0]
            if first == 0x22:  # a text
                if not buffer.ended and (len(token) == 1 or match.end() == len(data)):
                    self._at = match.start()
                    return True
                if self._depth == 1 and not self._records_at:
                    self._key = token[1:-1]
            elif first in b"[{":
                self._open(match.start(), first == 0x5B)
            else:
                self._close(match.end())
        self._at = len(data)
        return not buffer.ended

    def _open(self, at: int, is_array: bool) -> None:
        if self._depth == self._records_at:
            self._start = at
        self._depth += 1
        if not is_array or self._records_at:
            return
        if self._depth == 1 and not _PART.match(self._buffer.data[at : at + 2_000]):
            self._records_at = 1
        elif self._depth == 2 and self._key in _HOLDERS and not self._holder:
            self._records_at = 2
            self._holder = True

    def _close(self, end: int) -> None:
        self._depth -= 1
        if self._depth < self._records_at or (self._depth == 0 and self._holder):
            self._records_at = 0
            self._start = end
            self._holder = self._holder and self._depth > 0
        elif self._depth == self._records_at:
            piece = self._buffer.data[self._start : end]
            if self._skipped:
                piece, self._skipped = TooLong(self._skipped), b""
            elif self._records_at == 2:
                piece = b'{"' + self._key + b'":[' + piece + b"]}" if self._key == b"resourceSpans" else piece
            self._cut.append(piece)
            self._start = end

    def _drop(self) -> None:
        """Forget what has been handed out; of a record that grows too long, keep its beginning alone."""
        data = self._buffer.data
        if len(data) - self._start > MAX_RECORD_BYTES:
            self._skipped = self._skipped or data[self._start : self._start + 200]
            self._start = self._at
        if self._start:
            self._buffer.data = data[self._start :]
            self._at -= self._start
            self._start = 0
