"""Whose turn it is to write, among the processes that share one file: first come, first served.

SQLite's own wait polls, so that with two busy processes one starves for a second and more. Here the kernel
queues the waiters. One lock would not be enough: whoever releases it could take it again before the next
is awake. So there are two: whoever waits for `lock` holds `queue`, and the one who has just written stands
behind him. Both are released when a process dies, whatever it died of.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["TurnLock"]


class TurnLock:
    """A fair lock on the file `path`; `acquire` blocks the calling thread, without the interpreter's lock.

    Raises:
        OSError: The lock files cannot be created beside the database.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._lock = os.open(f"{path}-lock", flags, 0o600)
        try:
            self._queue = os.open(f"{path}-queue", flags, 0o600)
        except OSError:
            os.close(self._lock)
            raise

    def acquire(self) -> None:
        """Wait for our turn."""
        fcntl.flock(self._queue, fcntl.LOCK_EX)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        fcntl.flock(self._queue, fcntl.LOCK_UN)

    def release(self) -> None:
        """Let the next one write."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the lock files back to the system; they stay on the disk, empty."""
        os.close(self._queue)
        os.close(self._lock)
