"""What `doctor` says of a store on PostgreSQL: what could lose a record there, or holds up work, and what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator

from interlock.cli.machine import KEY_VARIABLE, Finding
from interlock.journal.health import ServerHealth, Setting

__all__ = ["kept_by_server", "sealing"]

# Leases go by the server's clock alone, and times are shown corrected: what is left is a person who compares logs.
APART_S = 5.0
# Of the connections that the server lets in.
CROWDED = 0.9


def kept_by_server(health: ServerHealth) -> Iterator[Finding]:
    """Yield how the server keeps the store."""
    yield Finding("ok", "server", f"PostgreSQL {health.version}")
    if health.standby:
        text = "this server is a standby and only reads: name the primary in the URL (target_session_attrs=read-write)"
        yield Finding("error", "server role", text)
    here = {setting.name: setting for setting in reversed(health.settings)}
    yield _flag(here["fsync"], "a power failure can lose intents that were acknowledged")
    yield _flag(here["full_page_writes"], "a power failure can tear a page, and with it any record")
    yield from _synchronous_commit(health)
    yield from _standbys(health, here["synchronous_standby_names"].value)
    yield _clock(health)
    yield Finding("ok", "schema", f"version {health.schema}, this program knows {health.known_schema}")
    yield _role(health)
    yield from _leftovers(health)


def sealing(replay: str) -> Finding:
    """Return whether what replay needs is kept, and under which key."""
    if replay != "on":
        return Finding("ok", "sealing", f"replay: {replay}; results are not sealed")
    if os.environ.get(KEY_VARIABLE):
        return Finding("ok", "sealing", f"by {KEY_VARIABLE}")
    text = (
        f"{KEY_VARIABLE} is not set: a worker started like this keeps no results and resumes no run; set it to 64 "
        "hexadecimal digits, the same for all workers, or say `replay: plaintext` or `off`"
    )
    return Finding("warning", "sealing", text)


def _flag(setting: Setting, loss: str) -> Finding:
    if setting.value == "on":
        return Finding("ok", setting.name, "on")
    text = f"off: {loss}; set {setting.name} = on in postgresql.conf, and reload"
    return Finding("error", setting.name, text)


def _synchronous_commit(health: ServerHealth) -> Iterator[Finding]:
    found = [setting for setting in health.settings if setting.name == "synchronous_commit"]
    weak = [finding for setting in found if (finding := _weak(setting, health)) is not None]
    if weak:
        yield from weak
    else:
        yield Finding("ok", "synchronous_commit", found[0].value)


def _weak(setting: Setting, health: ServerHealth) -> Finding | None:
    copied = bool(health.standbys) or any(
        other.value for other in health.settings if other.name == "synchronous_standby_names"
    )
    where = f"{setting.value} for {setting.source}"
    if setting.value == "off":
        text = (
            f"{where}: this program asks for it all the same, but behind a pooler for intents and results alone, and "
            f"a crash of the server can forget the last kill, approval or queued run; {_reset(setting)}"
        )
        return Finding("warning", "synchronous_commit", text)
    if setting.value == "local" and copied:
        text = (
            f"{where}: commits do not wait for any standby; a failover can forget acknowledged intents, and their "
            f"writes are sent again; {_reset(setting)}"
        )
        return Finding("error", "synchronous_commit", text)
    if setting.value == "remote_write" and copied:
        text = f"{where}: a standby that loses its power can forget what it has confirmed; {_reset(setting)}"
        return Finding("warning", "synchronous_commit", text)
    return None


def _reset(setting: Setting) -> str:
    if setting.source.startswith("role "):
        role, _, database = setting.source.removeprefix("role ").partition(" in database ")
        where = f" in database {database}" if database else ""
        return f"alter role {role}{where} set synchronous_commit = on"
    if setting.source.startswith("database "):
        return f"alter {setting.source} set synchronous_commit = on"
    return "set synchronous_commit = on in postgresql.conf, and reload"


def _standbys(health: ServerHealth, names: str) -> Iterator[Finding]:
    unseen = [standby for standby in health.standbys if not standby.sync]
    late = [standby.name for standby in health.standbys if standby.sync == "async"]
    in_step = [standby.name for standby in health.standbys if standby.sync in {"sync", "quorum"}]
    if unseen:
        text = f"{len(unseen)}, and this role may not see whether they are in step: grant pg_monitor to {health.role}"
        yield Finding("warning", "standbys", text)
    elif names and not in_step:
        text = f"synchronous_standby_names = {names!r}, and none of them is connected: commits wait; start one"
        yield Finding("error", "standbys", text)
    elif late:
        text = f"{', '.join(late)} copies asynchronously: if it is promoted, acknowledged intents can be missing there"
        if in_step:
            yield Finding("warning", "standbys", f"{text}; promote only {', '.join(in_step)}")
        else:
            yield Finding("warning", "standbys", f"{text}; name it in synchronous_standby_names")
    else:
        yield Finding("ok", "standbys", f"in step: {', '.join(in_step)}" if in_step else "none")


def _clock(health: ServerHealth) -> Finding:
    if abs(health.clock_ahead_s) <= APART_S:
        return Finding("ok", "clock", "agrees with the server's")
    text = (
        f"the server's clock is {health.clock_ahead_s:+.0f} s against this machine's: the store goes by the server's, "
        "and times shown here are corrected by it, but logs will not fit together; keep both with NTP"
    )
    return Finding("warning", "clock", text)


def _role(health: ServerHealth) -> Finding:
    if not health.row_security:
        text = "row-level security is off for the store's tables: any role let in sees every tenant; restore the schema"
        return Finding("error", "role", text)
    if health.tenant is not None:
        return Finding("ok", "role", f"{health.role}, bound to tenant {health.tenant} by row-level security")
    if health.exempt == "superuser":
        text = (
            f"{health.role} is a superuser, which workers need not be: give them a role that owns the schema and "
            "nothing else"
        )
        return Finding("warning", "role", text)
    return Finding("ok", "role", f"{health.role}, of the workers: sees all tenants ({health.exempt})")


def _leftovers(health: ServerHealth) -> Iterator[Finding]:
    if health.silent_writers:
        text = f"{health.silent_writers} rows of processes that were not seen for a day; the next worker removes them"
        yield Finding("ok", "writers", text)
    used = f"{health.connections} of {health.most_connections} connections"
    if health.connections >= CROWDED * health.most_connections:
        text = f"{used} are taken: raise max_connections, or put a pooler in front (?pooler=transaction)"
        yield Finding("warning", "connections", text)
    else:
        yield Finding("ok", "connections", used)
