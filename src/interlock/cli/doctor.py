"""Verb `doctor`: tries the store, and says what could lose a record or holds up work."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import typer

from interlock.cli.configuration import the_settings
from interlock.cli.opening import Store, in_store
from interlock.cli.options import ConfigOption, JsonOption, StoreOption
from interlock.cli.output import ago, print_json, print_text, when
from interlock.config.check import warnings
from interlock.config.settings import Settings, store_url
from interlock.core.clock import SYSTEM
from interlock.core.errors import ConfigError, InterlockError

__all__ = ["app"]

app = typer.Typer()

KEY_FILE = "interlock.key"
KEY_VARIABLE = "INTERLOCK_KEY"
MOUNTS = Path("/proc/mounts")
ENOUGH_BYTES = 200_000_000
SLOW_S = 0.25
# Locks and fsync of these are not what SQLite needs; the last two forget at power-off.
_SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "glusterfs", "ceph", "afs"})
_FORGETFUL = frozenset({"tmpfs", "ramfs"})
_LOOKS = {"ok": "green", "warning": "yellow", "error": "red"}


class Finding(NamedTuple):
    """One thing that was looked at, and how it is."""

    level: Literal["ok", "warning", "error"]
    subject: str
    text: str


@app.callback()
def _verbs() -> None:
    """Keep `doctor` a verb of its own although it is the only one here."""


@app.command()
def doctor(store: StoreOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Try the configuration and the store, and say what could lose a record. Exit 1 if something is broken."""
    findings = list(_examine(store, config))
    broken = any(finding.level == "error" for finding in findings)
    if as_json:
        print_json({"ok": not broken, "findings": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            print_text((f"{finding.level:<8}", _LOOKS[finding.level]), (f"{finding.subject}: ", "bold"), finding.text)
    if broken:
        raise typer.Exit(1)


def _examine(store: str | None, config: Path | None) -> Iterator[Finding]:
    try:
        settings = the_settings(config)
    except ConfigError as error:
        yield Finding("error", "configuration", str(error))
        return
    yield _configuration(settings)
    url = store_url(settings, store)
    try:
        yield from in_store(store, config, _try)
    except InterlockError as error:
        yield Finding("error", "store", str(error))
        return
    path = Path(url.removeprefix("sqlite:///")).absolute()
    yield from _disk(path)
    yield _key(settings, path)


def _configuration(settings: Settings) -> Finding:
    warned = sum(finding.level == "warning" for finding in warnings(settings))
    text = f"valid, profile {settings.profile}"
    if warned:
        return Finding("warning", "configuration", f"{text}; {warned} warnings: interlock check")
    return Finding("ok", "configuration", text)


async def _try(store: Store) -> list[Finding]:
    before_s = SYSTEM.monotonic()
    await store.flush()
    took_s = SYSTEM.monotonic() - before_s
    level: Any = "ok" if took_s < SLOW_S else "warning"
    found = [Finding(level, "store", f"open for writing; its turn came in {took_s * 1e3:.0f} ms")]
    for switch in (await store.switches.read()).switches:
        what = f"{switch.kind.value.replace('_', ' ')} {switch.scope.value} {switch.subject}".rstrip()
        found.append(Finding("warning", "switch", f"{what}, by {switch.actor} {when(switch.set_at)}: {switch.reason}"))
    doubts = await store.doubts()
    if doubts:
        oldest = ago(SYSTEM.wall() - doubts[0].last_sent_at)
        found.append(Finding("warning", "doubts", f"{len(doubts)} open, the oldest for {oldest}: interlock doubts"))
    else:
        found.append(Finding("ok", "doubts", "none open"))
    if pending := await store.approvals.list():
        found.append(Finding("warning", "approvals", f"{len(pending)} wait for a person: interlock approvals list"))
    return found


def _disk(path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path.parent).free
    level: Any = "ok" if free > ENOUGH_BYTES else "warning"
    yield Finding(level, "disk", f"{free / 1e9:.1f} GB free at {path.parent}")
    kind = _file_system(path)
    if kind in _SHARED:
        text = f"{path} lies on {kind}, a shared file system: its locks do not hold; use a local disk"
        yield Finding("error", "file system", text)
    elif kind in _FORGETFUL:
        yield Finding("warning", "file system", f"{path} lies on {kind}: a restart of the machine forgets every record")


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds `path`; "" where the machine does not say."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    mounts = [(line.split()[1].replace("\\040", " "), line.split()[2]) for line in lines if line.count(" ") >= 2]
    holding = [(point, kind) for point, kind in mounts if path.is_relative_to(point)]
    return max(holding, key=lambda mount: len(mount[0]), default=("", ""))[1]


def _key(settings: Settings, path: Path) -> Finding:
    if settings.replay != "on":
        return Finding("ok", "sealing", f"replay: {settings.replay}; results are not sealed")
    if os.environ.get(KEY_VARIABLE):
        return Finding("ok", "sealing", f"by {KEY_VARIABLE}")
    file = path.parent / KEY_FILE
    if not file.exists():
        return Finding("warning", "sealing", f"{file} is missing: results sealed so far cannot be read")
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        return Finding("warning", "sealing", f"{file} can be read by others (mode {mode:04o}): chmod 600 {file}")
    return Finding("ok", "sealing", f"by {file}")
