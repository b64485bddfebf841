"""Lines leave in the background, in order and whole, whatever the disk does.

What cannot be written (a full disk, a closed terminal, more lines than the queue holds) is counted, said once
on stderr, and said in the file itself when it can be written again.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from interlock.record.background import GATHER_S, BackgroundQueue

__all__ = ["LineWriter", "json_line"]

STDERR = "stderr"


def json_line(value: Any) -> bytes:
    """Return `value` as one line of JSON; what JSON cannot hold becomes text."""
    return orjson.dumps(value, default=str, option=orjson.OPT_APPEND_NEWLINE)


class LineWriter(BackgroundQueue):
    """Writes lines to a file or to stderr.

    Args:
        to: `stderr`, or the path of a file, which is appended to and re-opened when it is rotated away.
        encode: Turns a queued item into its line, ending in a newline; called in the background.

    Attributes:
        lost: Lines that could not be written.
    """

    def __init__(
        self,
        to: str,
        encode: Callable[[Any], bytes] = json_line,
        *,
        gather_s: float = GATHER_S,
        max_queued: int = 100_000,
    ) -> None:
        super().__init__(gather_s=gather_s, max_queued=max_queued)
        self._target = _Stderr() if to == STDERR else _File(Path(to))
        self._encode = encode
        self._warned = False
        self._unsaid = 0

    def handle(self, items: Sequence[Any]) -> None:
        """Write a batch of items."""
        # One buffer: a list of lines would hold the encoder's own buffer, of 4 KiB at least, for each of them.
        data, written = bytearray(), 0
        for item in items:
            try:
                data += self._encode(item)
                written += 1
            except Exception as error:
                self._fail(1, error)
        if written:
            self._write(data, written)

    def lose(self, items: int) -> None:
        """Count lines that could not be written."""
        super().lose(items)
        self._unsaid += items

    def release(self) -> None:
        """Close the file."""
        self._target.close()

    def _write(self, data: bytearray, lines: int) -> None:
        said = self._unsaid
        if said:
            data[:0] = json_line({"level": "error", "event": "lines_lost", "lost": said})
        try:
            self._target.write(data)
        except (OSError, ValueError) as error:
            self._fail(lines, error)
        else:
            self._unsaid -= said

    def _fail(self, lines: int, error: Exception) -> None:
        self.lose(lines)
        if self._warned:
            return
        self._warned = True
        with contextlib.suppress(Exception):
            sys.stderr.write(f"interlock: log lines are being lost ({self._target}): {error}\n")


class _Stderr:
    """Whatever `sys.stderr` is at the moment of writing, as programs and tests replace it."""

    def write(self, data: bytearray) -> None:
        if sys.stderr is None:
            raise OSError("there is no stderr")
        sys.stderr.write(data.decode("utf-8", "replace"))
        sys.stderr.flush()

    def close(self) -> None:
        pass

    def __str__(self) -> str:
        return STDERR


class _File:
    """A file that is appended to: whole lines, through rotation, and past a full disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._inode = 0
        self._torn = False

    def write(self, data: bytearray) -> None:
        self._open()
        rest = memoryview(b"\n" + data if self._torn else data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            # A part of a line may stand in the file: the next one must not be glued to it.
            self._torn = True
            raise
        self._torn = False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_ino == self._inode:
                    return
            self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._inode = os.fstat(self._fd).st_ino

    def __str__(self) -> str:
        return str(self._path)
