"""May this tool be used here? Deny wins, then allow, else no.

A tenant, and a run, can only narrow what the file permits; no later list can widen it. Without a file the
registered tools are the list: reads at once, writes if their unknown outcome can be closed or if they were
registered with `allow=True`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from interlock.core.calls import Answer, Call, OnUnknown, Proceed, RunFacts, ToolSpec
from interlock.core.canonical import plain_hash
from interlock.core.errors import ToolDenied
from interlock.policy.globs import MAX_NAME_LENGTH, GlobSet, valid_tool_name

__all__ = ["Allowlist", "Decision", "Policy", "PolicyOptions", "PolicyView", "Ruled", "TenantPolicy"]

# Views are kept by tenant and by the run's own list, of which there may be any number.
VIEWS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What one tenant may use of what everyone may. None: all of it.

    Attributes:
        allow: Globs; a tool must match these *and* `tools.allow`.
        deny: Globs, beside `tools.deny`.
        scopes: Ceiling of the scopes that the tenant's runs can use.
    """

    allow: Sequence[str] | None = None
    deny: Sequence[str] = ()
    scopes: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """Which tools may be used.

    Attributes:
        allow: Globs of `tools.allow`. None: no file was given, and the registered tools are the list.
        deny: Globs of `tools.deny`; they win.
        tenants: By tenant id.
    """

    allow: Sequence[str] | None = None
    deny: Sequence[str] = ()
    tenants: Mapping[str, TenantPolicy] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a tool may be used, and by which rule.

    Attributes:
        policy: `allow`, or why not: `deny`, `not_allowed`, `scope`, `unknown_tool`.
        rule: The glob that decided; where none did, the list that it is missing from, or the missing scopes.
        source: The configuration key to look at.
    """

    allowed: bool
    policy: str
    rule: str
    source: str


_UNKNOWN = Decision(False, "unknown_tool", "unknown tool", "tools")
_REGISTERED = Decision(True, "allow", "registered", "registration")
_UNCLOSABLE = Decision(False, "not_allowed", "registered", "registration")
_CLOSABLE = frozenset({OnUnknown.RESEND, OnUnknown.LOOKUP})

_Listed = tuple[str, GlobSet]


class PolicyView:
    """The rules as they stand for one tenant and run. Made by `Policy.view`; shared by equal runs.

    Attributes:
        scopes: Ceiling of the scopes that can be used here; None: whatever the run holds.
    """

    __slots__ = ("_allow", "_decided", "_denies", "_narrow", "scopes")

    def __init__(
        self,
        denies: Sequence[_Listed],
        allow: _Listed | None,
        narrow: Sequence[_Listed],
        scopes: frozenset[str] | None,
    ) -> None:
        self._denies = tuple(denies)
        self._allow = allow
        self._narrow = tuple(narrow)
        self._decided: dict[ToolSpec, Decision] = {}
        self.scopes = scopes

    def decide(self, tool: ToolSpec) -> Decision:
        """Return whether `tool` may be used here; the scopes that a single run holds are the guard's question."""
        decision = self._decided.get(tool)
        if decision is None:
            decision = self._judge(tool)
            # A name that nobody registered may be any name, as often as the model likes: not remembered.
            if tool.known:
                self._decided[tool] = decision
        return decision

    def narrowed(self, allow: Sequence[str]) -> PolicyView:
        """Return these rules for a child that may use no more than the globs of `allow`.

        Raises:
            ConfigError: A glob cannot be used.
        """
        return PolicyView(self._denies, self._allow, (*self._narrow, _own(allow)), self.scopes)

    def _judge(self, tool: ToolSpec) -> Decision:
        name = tool.name
        if not valid_tool_name(name):
            return _UNKNOWN
        for source, globs in self._denies:
            rule = globs.match(name)
            if rule is not None:
                return Decision(False, "deny", rule, source)
        if not tool.known:
            return _UNKNOWN
        decision = self._permit(tool)
        if not decision.allowed:
            return decision
        for source, globs in self._narrow:
            if globs.match(name) is None:
                return Decision(False, "not_allowed", source, source)
        if self.scopes is not None and not tool.scopes <= self.scopes:
            return Decision(False, "scope", missing_scopes(tool, self.scopes), "tenants")
        return decision

    def _permit(self, tool: ToolSpec) -> Decision:
        if self._allow is None:
            closable = tool.natural or tool.on_unknown in _CLOSABLE
            return _REGISTERED if closable or tool.allow or not tool.may_write else _UNCLOSABLE
        source, globs = self._allow
        rule = globs.match(tool.name)
        return Decision(False, "not_allowed", source, source) if rule is None else Decision(True, "allow", rule, source)


class Policy:
    """The compiled rules, and the views of them that runs get.

    Attributes:
        version: Short hash of the rules; approvals are bound to it.

    Raises:
        ConfigError: A glob cannot be used; says under which key it stands.
    """

    def __init__(self, options: PolicyOptions) -> None:
        self._allow = None if options.allow is None else ("tools.allow", GlobSet(options.allow, key="tools.allow"))
        self._deny = ("tools.deny", GlobSet(options.deny, key="tools.deny"))
        self._tenants = {tenant_id: _compile(tenant_id, rules) for tenant_id, rules in options.tenants.items()}
        self._views: dict[tuple[str | None, str | frozenset[str] | None], PolicyView] = {}
        self.version = plain_hash(_as_json(options))[:12]

    def view(self, tenant_id: str, narrow: Sequence[str] | None = None) -> PolicyView:
        """Return the rules for a run of `tenant_id`, which may use no more than the globs of `narrow`.

        Raises:
            ConfigError: A glob of `narrow` cannot be used.
        """
        # Tenants without rules of their own share one view, and what it remembers.
        own = narrow if narrow is None or isinstance(narrow, str) else frozenset(narrow)
        key = (tenant_id if tenant_id in self._tenants else None, own)
        view = self._views.get(key)
        if view is None:
            if len(self._views) >= VIEWS_KEPT:
                self._views.clear()
            view = self._views[key] = self._open(tenant_id, narrow)
        return view

    def _open(self, tenant_id: str, narrow: Sequence[str] | None) -> PolicyView:
        denies = [self._deny]
        lists: list[_Listed] = []
        tenant = self._tenants.get(tenant_id)
        if tenant is not None:
            denies.append(tenant.deny)
            lists += [tenant.allow] if tenant.allow is not None else []
        if narrow is not None:
            lists.append(_own(narrow))
        return PolicyView(
            denies=[listed for listed in denies if listed[1]],
            allow=self._allow,
            narrow=lists,
            scopes=tenant.scopes if tenant is not None else None,
        )


@dataclass(frozen=True, slots=True)
class _Tenant:
    allow: _Listed | None
    deny: _Listed
    scopes: frozenset[str] | None


def _compile(tenant_id: str, rules: TenantPolicy) -> _Tenant:
    allow, deny = f"tenants.{tenant_id}.allow", f"tenants.{tenant_id}.deny"
    return _Tenant(
        allow=None if rules.allow is None else (allow, GlobSet(rules.allow, key=allow)),
        deny=(deny, GlobSet(rules.deny, key=deny)),
        scopes=rules.scopes,
    )


def _own(allow: Sequence[str]) -> _Listed:
    return "the run's own `allow`", GlobSet(allow, key="the run's own `allow`")


def _as_json(options: PolicyOptions) -> dict[str, Any]:
    """The rules without what does not change their meaning: order and duplicates."""
    return {
        "allow": _sorted(options.allow),
        "deny": _sorted(options.deny),
        "tenants": {
            tenant_id: {"allow": _sorted(rules.allow), "deny": _sorted(rules.deny), "scopes": _sorted(rules.scopes)}
            for tenant_id, rules in options.tenants.items()
        },
    }


def _sorted(words: Iterable[str] | None) -> list[str] | None:
    return None if words is None else sorted(set(words))


def missing_scopes(tool: ToolSpec, scopes: frozenset[str]) -> str:
    """The scopes that `tool` asks for and that are not among `scopes`, for a message."""
    return ", ".join(sorted(tool.scopes - scopes))


class Ruled(RunFacts):
    """What this guard needs of a run."""

    __slots__ = ()
    policy: PolicyView


P = TypeVar("P", bound=Ruled)


class Allowlist:
    """Guard: nothing passes that the rules do not permit."""

    def __call__(self, tool: ToolSpec, proceed: Proceed[P]) -> Proceed[P]:
        scopes = tool.scopes

        def allowlist(call: Call[P]) -> Awaitable[Answer]:
            run = call.run
            decision = run.policy.decide(tool)
            if not tool.known:
                # Observing or not: there is nothing that could be called.
                raise _denied(tool, decision)
            if not decision.allowed:
                call.refuse(_denied(tool, decision))
            elif scopes and not scopes <= run.scopes:
                missing = missing_scopes(tool, run.scopes)
                call.refuse(_denied(tool, Decision(False, "scope", missing, "scopes of the run")))
            return proceed(call)

        return allowlist


def _denied(tool: ToolSpec, decision: Decision) -> ToolDenied:
    name = tool.name if valid_tool_name(tool.name) else ascii(tool.name[:MAX_NAME_LENGTH])
    if decision.policy == "deny":
        text = f"{name} is denied by {decision.source}: {decision.rule!r} matches it"
    elif decision.policy == "scope":
        text = f"{name} needs a scope that {decision.source} does not hold: {decision.rule}"
    elif decision.policy == "unknown_tool":
        text = f"{name} is not a registered tool: register it with @gate.tool, or correct the name in the prompt"
    elif decision.source == "registration":
        text = (
            f"{name} is a write whose unknown outcome cannot be closed: give it idempotency_key, lookup= or "
            f"natural=True, register it with allow=True, or list it under tools.allow"
        )
    else:
        text = f"{name} is not allowed: add it to {decision.source} to permit it"
    return ToolDenied(text, details={"policy": decision.policy, "rule": decision.rule, "source": decision.source})
