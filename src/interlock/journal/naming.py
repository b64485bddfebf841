"""Gives a write its keys: which effect it is, and which occurrence of it."""

from __future__ import annotations

import inspect
from typing import Any

from interlock.core.calls import Call, RunFacts, ToolSpec
from interlock.core.canonical import canonical_json, digest
from interlock.core.errors import ConfigError
from interlock.journal.keys import effect_key, sent_key

__all__ = ["Journaled", "check_identity", "give_back", "name_effect"]


class Journaled(RunFacts):
    """What the journal keeps of a run; children share it.

    Attributes:
        occurrences: How often each equal write was proposed.
        proposed: Effect keys of the request so far, where this run has seen all of them: it was the first to begin it,
            and nobody else can add to them. None where the store must be asked.
    """

    __slots__ = ()

    occurrences: dict[bytes, int]
    proposed: set[bytes] | None


def name_effect(call: Call[Any], secret: bytes, *, counted: bool) -> None:
    """Give the call its keys.

    Args:
        counted: The n-th equal write is another effect than the first; else all of them are one.
    """
    identity, identity_digest = _identity(call, secret)
    if counted:
        counter = call.tool.name.encode() + identity_digest
        occurrences = call.run.occurrences
        call.occurrence = occurrences[counter] = occurrences.get(counter, 0) + 1
    run, tool = call.run, call.tool.name
    tenant_id, request_id = run.tenant_id, run.root_request_id
    call.key = effect_key(run.request_time_ms, tenant_id, request_id, tool, identity_digest, call.occurrence, secret)
    call.sent_key = sent_key(tenant_id, request_id, tool, identity, call.occurrence)


def give_back(call: Call[Any], secret: bytes) -> None:
    """Uncount an occurrence that was refused, or proved not to have happened; unless a later one was counted."""
    counter = call.tool.name.encode() + _identity(call, secret)[1]
    occurrences = call.run.occurrences
    if occurrences.get(counter) == call.occurrence:
        occurrences[counter] -= 1


def _identity(call: Call[Any], secret: bytes) -> tuple[bytes, bytes]:
    """Return what identifies the effect, and its digest: the named arguments, if the call has them all, else all."""
    names = call.tool.identity
    if not names or any(name not in call.args for name in names):
        return call.args_json, call.digest
    identity = canonical_json({name: call.args[name] for name in names})
    return identity, digest(identity, secret)


def check_identity(tool: ToolSpec) -> None:
    """Refuse a tool whose `identity` names an argument that its function does not have.

    Raises:
        ConfigError: Says which name, and which key to change.
    """
    if not tool.identity or not tool.known:
        return
    try:
        parameters = inspect.signature(tool.fn).parameters
    except (TypeError, ValueError):
        return
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in tool.identity:
        if name not in parameters:
            raise ConfigError(
                f"tool {tool.name}: identity names {name!r}, which is not an argument of its function:"
                f' change tools.writes."{tool.name}".identity'
            )
