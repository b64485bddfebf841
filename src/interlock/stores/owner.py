"""Which process it was: boot, number and start time, so that a number used again is not taken for the same."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["is_alive", "this_boot", "this_process"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_TIME_FIELD = 19  # of /proc/PID/stat, counted after the command's closing bracket


def this_boot() -> str:
    """Return the id of this boot of the machine; "" where the system has none."""
    with contextlib.suppress(OSError):
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return ""


def this_process() -> str:
    """Return the name of this process, unlike that of any other on this machine, before or after."""
    return _name(os.getpid())


def is_alive(owner: str) -> bool:
    """Whether the process of this name still runs on this machine."""
    pid = owner.rpartition(":")[0].rpartition(":")[2]
    return pid.isdigit() and _name(int(pid)) == owner and _runs(int(pid))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's, but there
    return True


def _name(pid: int) -> str:
    boot_id, started = this_boot(), ""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        started = stat.rpartition(")")[2].split()[_START_TIME_FIELD]
    return f"{boot_id}:{pid}:{started}"
