"""What the machine says of a store's file: its file system, its disk, its key, and who holds it.

Read from the kernel, without opening the store: it must work where the store hangs.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["KEY_VARIABLE", "Finding", "disk", "key_file", "stopped_holders"]

KEY_FILE = "interlock.key"
KEY_VARIABLE = "INTERLOCK_KEY"
PROC = Path("/proc")
MOUNTS = PROC / "mounts"
ENOUGH_BYTES = 200_000_000
# Locks and fsync of these are not what SQLite needs; the last two forget at power-off.
_SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "glusterfs", "ceph", "afs", "lustre", "ocfs2"})
_FORGETFUL = frozenset({"tmpfs", "ramfs"})
# What `statfs` calls them: true inside containers as well, where the mounts of the host are not listed.
_MAGIC = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFE534D42: "smb2",
    0xFF534D42: "cifs",
    0x01021997: "9p",
    0x5346414F: "afs",
    0x00C36400: "ceph",
    0x0BD00BD0: "lustre",
    0x7461636F: "ocfs2",
}
# In /proc/locks SQLite's lock on writers is this byte of the `-shm` file.
_WRITE_BYTE = "120"


class Finding(NamedTuple):
    """One thing that was looked at, how it is, and what to do."""

    level: Literal["ok", "warning", "error"]
    subject: str
    text: str


def disk(path: Path) -> Iterator[Finding]:
    """Yield what the file system of the store is and how much of it is free."""
    free = shutil.disk_usage(path.parent).free
    room = f"{free / 1e9:.1f} GB free at {path.parent}"
    if free > ENOUGH_BYTES:
        yield Finding("ok", "disk", room)
    else:
        yield Finding("warning", "disk", f"{room}: free some; on a full disk writes are refused (interlock purge)")
    kind = _file_system(path)
    if kind in _SHARED or kind in _MAGIC.values():
        text = f"{path} lies on {kind}, a shared file system: its locks do not hold; use a local disk"
        yield Finding("error", "file system", text)
    elif kind in _FORGETFUL:
        text = f"{path} lies on {kind}: a restart of the machine forgets every record; use a disk"
        yield Finding("error", "file system", text)


def key_file(path: Path, replay: str) -> Finding:
    """Return whether what is sealed can be opened by us, and by nobody else."""
    if replay != "on":
        return Finding("ok", "sealing", f"replay: {replay}; results are not sealed")
    if os.environ.get(KEY_VARIABLE):
        return Finding("ok", "sealing", f"by {KEY_VARIABLE}")
    file = path.parent / KEY_FILE
    if not file.exists():
        text = f"{file} is missing: results sealed so far cannot be read; restore it, or set {KEY_VARIABLE}"
        return Finding("warning", "sealing", text)
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        return Finding("warning", "sealing", f"{file} can be read by others (mode {mode:04o}): chmod 600 {file}")
    return Finding("ok", "sealing", f"by {file}")


def stopped_holders(path: Path) -> Iterator[Finding]:
    """Yield the stopped processes that hold a lock which every writer of the store waits for."""
    files = {_inode(Path(f"{path}{suffix}")): suffix for suffix in ("-lock", "-queue", "-shm")}
    files.pop(None, None)
    for pid, inode, start in _locks():
        suffix = files.get(inode)
        if suffix is None or (suffix == "-shm" and start != _WRITE_BYTE) or _state(pid) not in {"T", "t"}:
            continue
        text = (
            f"process {pid} ({_command(pid)}) holds {path.name}{suffix} and is stopped: nobody can write; "
            f"let it go on (kill -CONT {pid}), or end it (kill -9 {pid})"
        )
        yield Finding("error", "writer", text)


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds `path`; "" where the machine does not say."""
    listed = _mounted(path.resolve())
    return listed if listed in _SHARED or listed in _FORGETFUL else _MAGIC.get(_statfs(path), listed)


def _mounted(path: Path) -> str:
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    mounts = [(line.split()[1].replace("\\040", " "), line.split()[2]) for line in lines if line.count(" ") >= 2]
    holding = [(point, kind) for point, kind in mounts if path.is_relative_to(point)]
    return max(holding, key=lambda mount: len(mount[0]), default=("", ""))[1]


def _statfs(path: Path) -> int:
    """Return the magic number of the file system that holds `path`; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    # Its first word is the type, on every Linux of 64 bits; no more of it is read.
    answer = (ctypes.c_ulong * 64)()
    failed = ctypes.CDLL(None).statfs(os.fsencode(path), ctypes.byref(answer))
    return 0 if failed else answer[0] & 0xFFFFFFFF


def _locks() -> Iterator[tuple[int, int, str]]:
    """Yield the exclusive locks of this machine: process, inode, first byte; without those who wait for one."""
    try:
        lines = (PROC / "locks").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split()
        if len(words) == 8 and words[3] == "WRITE" and words[4].isdigit():
            inode = words[5].rpartition(":")[2]
            if inode.isdigit():
                yield int(words[4]), int(inode), words[6]


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _state(pid: int) -> str:
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


def _command(pid: int) -> str:
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "?"
    return " ".join(words).strip()[:60] or "?"
