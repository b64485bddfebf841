"""The allow list: deny wins, then allow, else no; a tenant, a run and a child can only narrow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_scenes import Scope, Through, make_call, make_tool

from interlock.core.calls import Effect, OnUnknown
from interlock.core.clock import ManualClock
from interlock.core.errors import ConfigError, ToolDenied
from interlock.core.reasons import StopReason
from interlock.policy.allowlist import Allowlist, Policy, PolicyOptions, TenantPolicy

words = st.sampled_from(["db.read", "db.write", "mail.send", "db.*", "*.read", "*", "mail.*"])
lists = st.lists(words, max_size=4)
tools = st.sampled_from([make_tool(n) for n in ("db.read", "db.write", "mail.send", "fs.read")])


def view(allow=None, deny=(), *, tenant_id="acme", narrow=None, **tenants):
    return Policy(PolicyOptions(allow, deny, tenants)).view(tenant_id, narrow)


def test_default_deny():
    decision = view([]).decide(make_tool("kb.read"))
    assert (decision.allowed, decision.policy, decision.source) == (False, "not_allowed", "tools.allow")


def test_deny_wins_over_allow():
    decision = view(["db.write"], ["db.*"]).decide(make_tool("db.write"))
    assert (decision.allowed, decision.policy, decision.rule) == (False, "deny", "db.*")


def test_allow_names_its_rule():
    decision = view(["kb.*"], ["db.*"]).decide(make_tool("kb.read"))
    assert (decision.allowed, decision.rule, decision.source) == (True, "kb.*", "tools.allow")


def test_an_unknown_tool_is_denied_although_a_glob_matches():
    decision = view(["*"]).decide(make_tool("made.up", known=False))
    assert (decision.allowed, decision.policy) == (False, "unknown_tool")


def test_an_unknown_tool_that_is_denied_says_by_which_rule():
    assert view(["*"], ["db.write"]).decide(make_tool("db.write", known=False)).rule == "db.write"


def test_names_that_no_tool_can_have_are_unknown_even_where_everything_is_allowed():
    assert view(["*"]).decide(make_tool("db.read\n")).policy == "unknown_tool"


def test_unknown_names_are_not_remembered():
    rules = view(["*"])
    for n in range(50):
        rules.decide(make_tool(f"made.up{n}", known=False))
    rules.decide(make_tool("kb.read"))
    assert len(rules._decided) == 1


@pytest.mark.parametrize(
    ("tool", "allowed"),
    [
        (make_tool("a"), True),
        (make_tool("a", effect=Effect.WRITE), False),
        (make_tool("a", effect=Effect.WRITE, on_unknown=OnUnknown.TELL), False),
        (make_tool("a", effect=Effect.WRITE, on_unknown=OnUnknown.RESEND), True),
        (make_tool("a", effect=Effect.WRITE, on_unknown=OnUnknown.LOOKUP), True),
        (make_tool("a", effect=Effect.WRITE, natural=True), True),
        (make_tool("a", effect=Effect.WRITE, allow=True), True),
        (make_tool("a", effect=lambda args: "read"), False),
    ],
)
def test_without_a_file_what_can_be_closed_is_allowed(tool, allowed):
    assert view(None).decide(tool).allowed is allowed


def test_without_a_file_deny_and_narrowing_still_hold():
    assert not view(None, ["a*"]).decide(make_tool("a")).allowed
    assert not view(None, narrow=["b"]).decide(make_tool("a")).allowed
    assert view(None, narrow=["a"]).decide(make_tool("a")).allowed
    unclosable = make_tool("a", effect=Effect.WRITE)
    assert not view(None, narrow=["a"]).decide(unclosable).allowed, "a run's own list never widens"
    assert not view(None, acme=TenantPolicy(allow=["a"])).decide(unclosable).allowed, "nor does a tenant's"


def test_with_a_file_allow_true_in_code_does_not_count():
    assert not view(["kb.read"]).decide(make_tool("a", effect=Effect.WRITE, allow=True)).allowed


@given(lists, lists, lists, lists, st.none() | lists, st.none() | lists, tools)
def test_tenants_runs_and_children_only_narrow(allow, deny, t_allow, t_deny, narrow, child, tool):
    policy = Policy(PolicyOptions(allow, deny, {"acme": TenantPolicy(t_allow, t_deny)}))
    wide, tenant, own = policy.view("other"), policy.view("acme"), policy.view("acme", narrow)
    below = own if child is None else own.narrowed(child)
    chain = [
        below.decide(tool).allowed,
        own.decide(tool).allowed,
        tenant.decide(tool).allowed,
        wide.decide(tool).allowed,
    ]
    assert chain == sorted(chain)


def test_a_tenant_without_rules_has_everyones():
    policy = Policy(PolicyOptions(["kb.read"], (), {"acme": TenantPolicy(allow=[])}))
    assert policy.view("globex").decide(make_tool("kb.read")).allowed
    denied = policy.view("acme").decide(make_tool("kb.read"))
    assert (denied.allowed, denied.source) == (False, "tenants.acme.allow")


def test_a_tenants_scopes_are_a_ceiling():
    tool = make_tool("kb.read", scopes=frozenset({"kb", "pii"}))
    rules = view(["*"], acme=TenantPolicy(scopes=frozenset({"kb"})))
    decision = rules.decide(tool)
    assert (decision.allowed, decision.policy, decision.rule) == (False, "scope", "pii")


def test_equal_runs_share_a_view_and_unequal_ones_do_not():
    policy = Policy(PolicyOptions(["*"]))
    assert policy.view("a") is policy.view("b")
    assert policy.view("a", ["x", "y"]) is policy.view("b", ["y", "x"])
    assert policy.view("a", ["x"]) is not policy.view("a")
    assert policy.view("a", []) is not policy.view("a")


def test_a_runs_list_that_is_a_text_is_refused_each_time():
    policy = Policy(PolicyOptions(["*"]))
    policy.view("a", ["*"])
    for _ in range(2):
        with pytest.raises(ConfigError, match="list"):
            policy.view("a", "*")


def test_views_of_many_runs_are_bounded(monkeypatch):
    monkeypatch.setattr("interlock.policy.allowlist.VIEWS_KEPT", 8)
    policy = Policy(PolicyOptions(["*"]))
    for n in range(50):
        assert policy.view("a", [f"t{n}"]).decide(make_tool(f"t{n}")).allowed
    assert len(policy._views) <= 8


def test_the_version_is_of_the_rules_and_of_nothing_else():
    def version(allow, deny=(), **tenants):
        return Policy(PolicyOptions(allow, deny, tenants)).version

    assert version(["a", "b"]) == version(["b", "a", "a"])
    versions = [
        version(None),
        version([]),
        version(["a"]),
        version([], ["a"]),
        version([], t=TenantPolicy(allow=["a"])),
    ]
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (PolicyOptions(["[a]"]), r"tools\.allow"),
        (PolicyOptions([], [""]), r"tools\.deny"),
        (PolicyOptions([], [], {"acme": TenantPolicy(["é"])}), r"tenants\.acme\.allow"),
    ],
)
def test_a_bad_glob_is_found_when_the_rules_are_compiled(options, key):
    with pytest.raises(ConfigError, match=key):
        Policy(options)


async def ask(tool, *, allow=("*",), deny=(), scopes=(), observing=False):
    through = Through()
    run = Scope(ManualClock(), scopes=scopes, observing=observing, policy=view(list(allow), deny))
    call = make_call(run, tool)
    return call, through, await Allowlist()(tool, through)(call)


async def test_an_allowed_call_goes_through():
    call, through, answer = await ask(make_tool())
    assert through.calls == [call]
    assert answer.value == "done"


@pytest.mark.parametrize(
    ("tool", "deny", "details"),
    [
        (make_tool("db.write"), ["db.*"], {"policy": "deny", "rule": "db.*", "source": "tools.deny"}),
        (make_tool("x", known=False), [], {"policy": "unknown_tool", "rule": "unknown tool", "source": "tools"}),
        (make_tool("x", scopes=frozenset({"s"})), [], {"policy": "scope", "rule": "s", "source": "scopes of the run"}),
    ],
)
async def test_a_refusal_says_why_to_the_record_and_not_to_the_model(tool, deny, details):
    with pytest.raises(ToolDenied) as denied:
        await ask(tool, deny=deny)
    assert denied.value.details == details
    assert denied.value.reason is StopReason.TOOL_DENIED
    assert denied.value.for_model == ToolDenied.default_for_model


async def test_the_developer_reads_which_key_to_change():
    with pytest.raises(ToolDenied, match=r"add it to tools\.allow"):
        await ask(make_tool("kb.read"), allow=["search.read"])


async def test_a_name_made_of_anything_is_shown_escaped():
    with pytest.raises(ToolDenied) as denied:
        await ask(make_tool("a\n\u202e" + "x" * 500, known=False))
    text = str(denied.value)
    assert "\n" not in text
    assert text.isascii()
    assert len(text) < 400


async def test_a_held_scope_is_enough():
    _, through, _ = await ask(make_tool("x", scopes=frozenset({"s"})), scopes=["s", "t"])
    assert len(through.calls) == 1


async def test_observing_notes_and_lets_through():
    call, through, _ = await ask(make_tool("db.write"), deny=["db.*"], observing=True)
    assert through.calls == [call]
    assert call.would_have == [StopReason.TOOL_DENIED]
