"""Lines leave through a thread of their own: a caller appends to a queue and goes on, whatever the disk does.

The thread sleeps until a line comes, then gathers for a moment and writes many lines at once. What cannot be
written (a full disk, a closed terminal, more lines than the queue holds) is counted, said once on stderr, and
said in the file itself when it can be written again. The tool's path never waits and never fails for a line.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

__all__ = ["GATHER_S", "LineWriter"]

STDERR = "stderr"
GATHER_S = 0.05
FLUSH_S = 5.0
MAX_QUEUED = 100_000
MAX_BATCH = 128  # some 40 kB: a larger buffer costs more in fresh pages than it saves in system calls


class LineWriter:
    """Writes lines to a file or to stderr, in order, in the background.

    Args:
        to: `stderr`, or the path of a file, which is appended to and re-opened when it is rotated away.
        encode: Turns a queued item into its line, ending in a newline; called in the background.
        gather_s: Seconds for which lines are gathered before they are written together.
        max_queued: Lines that may wait; further ones are lost.

    Attributes:
        lost: Lines that could not be written.
    """

    def __init__(
        self,
        to: str,
        encode: Callable[[Any], bytes],
        *,
        gather_s: float = GATHER_S,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self.lost = 0
        self._target = _Stderr() if to == STDERR else _File(Path(to))
        self._encode = encode
        self._gather_s = gather_s
        self._max_queued = max_queued
        self._queue: deque[Any] = deque()
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._asleep = True
        self._closed = False
        self._warned = False
        self._unsaid = 0
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def put(self, item: Any) -> None:
        """Queue one item; never waits, never raises."""
        queue = self._queue
        if len(queue) >= self._max_queued:
            self.lost += 1
            self._unsaid += 1
            return
        queue.append(item)
        if self._asleep:
            self._wake()

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until what is queued by now is written or lost; return whether that took less than `timeout_s`."""
        if self._thread is None or not self._thread.is_alive():
            return not self._queue
        barrier = threading.Event()
        self._queue.append(barrier)
        self._hurry.set()
        self._work.set()
        return barrier.wait(timeout_s)

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Write what is queued, end the thread and close the file; a line that comes later starts anew."""
        thread = self._thread
        self.flush(timeout_s)
        self._closed = True
        self._hurry.set()
        self._work.set()
        if thread is not None:
            thread.join(timeout_s)
        atexit.unregister(self.flush)

    def _wake(self) -> None:
        self._asleep = False  # once is enough: the next callers find it awake
        if self._thread is None or not self._thread.is_alive():
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._closed = False
                    self._start()
        self._work.set()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="interlock-lines", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is going down: the next line tries again
            self._asleep = True
            return
        self._thread = thread
        atexit.register(self.flush)

    def _run(self) -> None:
        while True:
            self._asleep = True
            if not self._queue and not self._closed:
                self._work.wait()
            self._work.clear()
            self._asleep = False
            while self._queue:
                self._hurry.wait(self._gather_s)
                self._hurry.clear()
                self._drain()
            if self._closed:
                self._asleep = True
                self._drain()
                self._target.close()
                return

    def _drain(self) -> None:
        while self._queue:
            self._write_batch()

    def _write_batch(self) -> None:
        queue = self._queue
        lines: list[bytes] = []
        barriers: list[threading.Event] = []
        while queue and len(lines) < MAX_BATCH:
            item = queue.popleft()
            if isinstance(item, threading.Event):
                barriers.append(item)
                continue
            try:
                lines.append(self._encode(item))
            except Exception as error:
                self._lose(1, error)
        if lines:
            self._write(lines)
        for barrier in barriers:
            barrier.set()

    def _write(self, lines: list[bytes]) -> None:
        said = self._unsaid
        if said:
            lines.insert(0, orjson.dumps({"level": "error", "event": "lines_lost", "lost": said}) + b"\n")
        try:
            self._target.write(b"".join(lines))
        except (OSError, ValueError) as error:
            self._lose(len(lines) - bool(said), error)
        else:
            self._unsaid -= said

    def _lose(self, lines: int, error: Exception) -> None:
        self.lost += lines
        self._unsaid += lines
        if self._warned:
            return
        self._warned = True
        with contextlib.suppress(Exception):
            sys.stderr.write(f"interlock: log lines are being lost ({self._target}): {error}\n")


class _Stderr:
    """Whatever `sys.stderr` is at the moment of writing, as programs and tests replace it."""

    def write(self, data: bytes) -> None:
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

    def write(self, data: bytes) -> None:
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
