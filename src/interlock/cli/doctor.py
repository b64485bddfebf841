"""Verb `doctor`: tries the store, and says what could lose a record or holds up work, and what to do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import typer

from interlock.cli.configuration import the_settings
from interlock.cli.doctor_postgres import kept_by_server, sealing
from interlock.cli.machine import Finding, disk, key_file, stopped_holders
from interlock.cli.opening import Store, in_store
from interlock.cli.options import ConfigOption, JsonOption, StoreOption
from interlock.cli.output import ago, print_json, print_text, when
from interlock.config.check import warnings
from interlock.config.settings import Settings, store_url
from interlock.core.clock import SYSTEM
from interlock.core.errors import ConfigError, InterlockError
from interlock.journal.health import Checkup, ServerHealth, StoreHealth, StuckRun

__all__ = ["app"]

app = typer.Typer()

SLOW_S = 0.25
# The wall clock is corrected by less than this all the time.
MOVED_S = 60.0
FULL = 2
_SCHEME = "sqlite:///"
_LOOKS = {"ok": "green", "warning": "yellow", "error": "red"}
_SYNCHRONOUS = ("off", "normal", "full", "extra")
_MAY_LOSE = frozenset({"memory", "off"})


@runtime_checkable
class _Checked(Protocol):
    """A store that can say how it is kept."""

    @property
    def checkup(self) -> Checkup: ...


@app.callback()
def _verbs() -> None:
    """Keep `doctor` a verb of its own although it is the only one here."""


@app.command()
def doctor(store: StoreOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Try the configuration and the store. Exit 1 if something is broken, or can lose a write's record."""
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
    path = Path(url.removeprefix(_SCHEME)).absolute()
    if url.startswith(_SCHEME) and path.is_file():
        # Before the store is opened: these say why it cannot be.
        yield from disk(path)
        yield key_file(path, settings.replay)
        held = list(stopped_holders(path))
        yield from held
        if held:
            return  # whoever asks for the store now waits

    async def ask(opened: Store) -> list[Finding]:
        return [finding async for finding in _try(opened, settings)]

    try:
        yield from in_store(store, config, ask)
    except InterlockError as error:
        yield Finding("error", "store", str(error))


def _configuration(settings: Settings) -> Finding:
    warned = sum(finding.level == "warning" for finding in warnings(settings))
    text = f"valid, profile {settings.profile}"
    if warned:
        return Finding("warning", "configuration", f"{text}; {warned} warnings: interlock check")
    return Finding("ok", "configuration", text)


async def _try(store: Store, settings: Settings) -> AsyncIterator[Finding]:
    if isinstance(store, _Checked):
        health = await store.checkup.health()
        if isinstance(health, ServerHealth):
            yield sealing(settings.replay)
        for finding in kept_by_server(health) if isinstance(health, ServerHealth) else _kept(health):
            yield finding
        yield _stuck(health.stuck)
    yield await _turn(store)
    for switch in (await store.switches.read()).switches:
        what = f"{switch.kind.value.replace('_', ' ')} {switch.scope.value} {switch.subject}".rstrip()
        text = f"{what}, by {switch.actor} {when(switch.set_at)}: {switch.reason} (interlock lift)"
        yield Finding("warning", "switch", text)
    yield await _doubts(store, settings.tools.dedupe_window_s)
    if pending := await store.approvals.list():
        yield Finding("warning", "approvals", f"{len(pending)} wait for a person: interlock approvals list")


async def _turn(store: Store) -> Finding:
    """Return whether the store can be written, and how soon."""
    before_s = SYSTEM.monotonic()
    try:
        await store.flush()
    except InterlockError as error:
        return Finding("error", "store", str(error))
    took_s = SYSTEM.monotonic() - before_s
    took = f"open for writing; its turn came in {took_s * 1e3:.0f} ms"
    if took_s < SLOW_S:
        return Finding("ok", "store", took)
    return Finding("warning", "store", f"{took}: the disk is slow, or many processes write; see its load")


def _kept(health: StoreHealth) -> Iterator[Finding]:
    """Yield how the file is kept."""
    mode = health.journal_mode
    if mode == "wal":
        yield Finding("ok", "journal mode", "wal")
    else:
        text = f"{mode} instead of wal: another program has the file open; close it, and start again"
        yield Finding("error" if mode in _MAY_LOSE else "warning", "journal mode", text)
    synchronous = _SYNCHRONOUS[health.synchronous] if health.synchronous < len(_SYNCHRONOUS) else "unknown"
    if health.synchronous >= FULL:
        yield Finding("ok", "synchronous", synchronous)
    else:
        text = f"{synchronous} instead of full: a power failure can lose an intent; rebuild or replace this SQLite"
        yield Finding("error", "synchronous", text)
    yield Finding("ok", "schema", f"version {health.schema}, this program knows {health.known_schema}")
    if abs(health.clock_moved_s) > MOVED_S:
        text = (
            f"the wall clock was set by {health.clock_moved_s:+.0f} s since the boot: ages of doubts and keys counted "
            "over it are wrong by as much (leases are not); keep it with NTP, and purge only when it is right"
        )
        yield Finding("warning", "clock", text)
    elif health.ahead_s > MOVED_S:
        text = f"the newest run is dated {health.ahead_s:.0f} s ahead of this clock: one of the two was wrong; keep NTP"
        yield Finding("warning", "clock", text)
    else:
        yield Finding("ok", "clock", "agrees with the time since boot")


def _stuck(stuck: tuple[StuckRun, ...]) -> Finding:
    if not stuck:
        return Finding("ok", "stuck runs", "none")
    first = stuck[0]
    age = ago(max(0.0, SYSTEM.wall() - first.since))
    text = (
        f"{len(stuck)} are under way and their process is gone; the oldest is {first.run_id} of {first.agent} "
        f"for {first.tenant_id}, since {age}: start a process that has its agent, or deliver its request again "
        f"(interlock show {first.run_id})"
    )
    return Finding("warning", "stuck runs", text)


async def _doubts(store: Store, window_s: float) -> Finding:
    doubts = await store.doubts()
    if not doubts:
        return Finding("ok", "doubts", "none open")
    now = SYSTEM.wall()
    oldest = ago(now - min(claim.last_sent_at for claim in doubts))
    text = f"{len(doubts)} open, the oldest for {oldest}: interlock doubts"
    if late := sum(now - claim.first_sent_at > window_s for claim in doubts):
        text += f"; {late} older than tools.dedupe_window_s: not sent again by themselves, settle them"
    return Finding("warning", "doubts", text)
