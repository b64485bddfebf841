"""doubts, settle, approvals, kill, lift, safe-mode: what people decide, and that workers see it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from interlock.journal.store import ClaimState, Intent, NewRun, Settlement
from interlock.policy.approval import ApprovalState
from interlock.policy.switches import SwitchKind, SwitchScope
from interlock.stores.sqlite import SqliteStore

WHEN = int(1.7e12).to_bytes(8, "big")
DOUBT = WHEN + bytes(range(16))
KEY = DOUBT.hex()
WHO = ("--by", "ana", "--reason", "looked at the remote")


def ask(path, question, clock):
    opened = SqliteStore(path, clock=clock)
    try:
        return asyncio.run(question(opened))
    finally:
        opened.close()


def claim(path, clock):
    return ask(path, lambda s: s.find(DOUBT), clock)


def switches(path, clock):
    return ask(path, lambda s: s.switches.read(), clock).switches


def test_doubts_say_what_who_when_how_and_the_commands(typed, store, clock):
    clock.advance(7200)
    out = typed("doubts").out
    assert "ticket.create  args 64646464  sent 1x  2 h" in out
    assert "triage for acme, run run_doubt, request req_7842" in out
    assert "when      2023-11-14 22:13:20Z" in out
    assert "evidence  attempt 1: read timeout" in out
    assert "needs     a person: look for the idempotency key il1_" in out
    assert f"interlock settle {KEY} --done RESULT --by YOU --reason WHY" in out
    assert f"interlock settle {KEY} --not-performed --by YOU --reason WHY" in out


def test_doubts_as_json_and_by_tenant(typed, store):
    (doubt,) = typed("doubts", "--json").json
    assert (doubt["key"], doubt["state"], doubt["tool"]) == (KEY, "in_doubt", "ticket.create")
    assert doubt["evidence"] == [{"attempt": 1, "kind": "read_timeout"}]
    assert doubt["sent_key"] in doubt["needs"]
    assert doubt["age_s"] >= 0
    assert typed("doubts", "--json", "--tenant", "beta").json == []


def test_unverified_writes_are_listed_apart(typed, store):
    (found,) = typed("doubts", "--unverified", "--json").json
    assert (found["tool"], found["verified"], found["settle"]) == ("order.create", False, None)
    out = typed("doubts", "--unverified").out
    assert "order.create" in out
    assert "interlock settle" not in out


@pytest.mark.parametrize(
    ("verdict", "state", "result"),
    [
        (["--done", '{"url": "T-1", "a": 1}'], ClaimState.DONE, b'{"a":1,"url":"T-1"}'),
        (["--done", "PROJ-123"], ClaimState.DONE, b'"PROJ-123"'),
        (["--done"], ClaimState.DONE, None),
        (["--not-performed"], ClaimState.FAILED_CLEAN, None),
    ],
)
def test_settle_closes_the_doubt(typed, store, clock, verdict, state, result):
    said = typed("settle", KEY, *verdict, *WHO, "--json")
    assert said.code == 0
    assert said.json == {"key": KEY, "tool": "ticket.create", "run_id": "run_doubt", "state": state.value, "by": "ana"}
    closed = claim(store, clock)
    assert (closed.state, closed.result) == (state, result)
    assert (closed.settled_by, closed.settle_reason) == ("ana", "looked at the remote")
    assert typed("doubts", "--json").json == []
    assert "no open doubt has this key" in typed("settle", KEY, *verdict, *WHO).err


def test_settle_takes_the_first_digits(typed, store, clock):
    assert typed("settle", KEY[:20], "--not-performed", *WHO).code == 0
    assert claim(store, clock).state is ClaimState.FAILED_CLEAN


def test_digits_that_begin_two_keys_settle_neither(typed, store, clock):
    other = WHEN + b"x" * 16

    async def doubt_another(opened):
        await opened.begin(NewRun("run_more", "acme", "req_more", "triage", "h", "run_more"))
        intent = Intent(
            other, "acme", "req_more", "run_more", "", "triage", "a.b", b"d" * 16, 1, "stop", "il1_x", 1, 1, 1
        )
        await opened.claim(intent)
        await opened.settle(other, Settlement(ClaimState.IN_DOUBT))

    ask(store, doubt_another, clock)
    assert len(typed("doubts", "--json").json) == 2
    said = typed("settle", WHEN.hex(), "--not-performed", *WHO)
    assert said.code == 1
    assert "begins 2 keys" in said.err
    assert len(typed("doubts", "--json").json) == 2


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ([KEY, *WHO], 2, "either --done"),
        ([KEY, "--done", "1", "--not-performed", *WHO], 2, "either --done"),
        ([KEY, "--not-performed", "--by", "ana"], 2, "--reason"),
        ([KEY, "--not-performed", "--reason", "x"], 2, "--by"),
        ([KEY, "--not-performed", "--by", " ", "--reason", "x"], 2, "may not be empty"),
        ([KEY[:4], "--not-performed", *WHO], 1, "at least 8 digits"),
        (["f" * 48, "--not-performed", *WHO], 1, "no open doubt has this key"),
        ([(WHEN + bytes(range(1, 17))).hex(), "--not-performed", *WHO], 1, "no open doubt has this key"),
    ],
)
def test_settle_refuses_what_is_not_clear(typed, store, clock, args, code, says):
    said = typed("settle", *args)
    assert said.code == code
    assert says in said.err
    assert claim(store, clock).state is ClaimState.IN_DOUBT


# Approvals


def pending(typed):
    (row,) = typed("approvals", "list", "--json").json
    return row


def test_approvals_say_what_is_asked(typed, store):
    out = typed("approvals", "list").out
    assert 'refund.create {"order_id": "17"}' in out
    assert f"interlock approvals approve {pending(typed)['id']} --by YOU" in out
    assert "expires in 1 h" in out


@pytest.mark.parametrize(("verb", "state"), [("approve", ApprovalState.APPROVED), ("deny", ApprovalState.DENIED)])
def test_a_decision_is_kept_and_made_once(typed, store, clock, verb, state):
    row = pending(typed)
    decided = typed("approvals", verb, row["id"], "--by", "ana", "--reason", "fine", "--json").json
    assert (decided["state"], decided["decided_by"], decided["reason"]) == (state.value, "ana", "fine")
    kept = ask(store, lambda s: s.approvals.get(DOUBT, "v1"), clock)
    assert kept.state is state
    assert typed("approvals", "list", "--json").json == []
    assert [r["id"] for r in typed("approvals", "list", "--state", state.value, "--json").json] == [row["id"]]
    for second in ("approve", "deny"):
        said = typed("approvals", second, row["id"], "--by", "bob")
        assert said.code == 1
        assert f"already {state.value} by ana" in said.err


def test_an_expired_approval_cannot_be_decided(typed, store, clock):
    row = pending(typed)
    clock.advance(3601)
    said = typed("approvals", "approve", row["id"], "--by", "ana")
    assert said.code == 1
    assert "already expired" in said.err
    assert [r["state"] for r in typed("approvals", "list", "--state", "all", "--json").json] == ["expired"]


def test_approvals_that_are_not_there(typed, store):
    assert "no approval has the id" in typed("approvals", "approve", "nope", "--by", "ana").err
    assert typed("approvals", "list", "--state", "perhaps").code == 2
    assert typed("approvals", "approve", "nope").code == 2
    assert "say who decides" in typed("approvals", "deny", pending(typed)["id"], "--by", " ").err


# Switches


@pytest.mark.parametrize(
    ("words", "scope", "subject"),
    [
        (["global"], SwitchScope.GLOBAL, ""),
        (["--scope", "global"], SwitchScope.GLOBAL, ""),
        (["tenant", "acme"], SwitchScope.TENANT, "acme"),
        (["--scope", "agent", "triage"], SwitchScope.AGENT, "triage"),
        (["tool", "ticket.*"], SwitchScope.TOOL, "ticket.*"),
        (["--scope", "run", "run_now"], SwitchScope.RUN, "run_now"),
    ],
)
def test_kill_and_lift(typed, store, clock, words, scope, subject):
    killed = typed("kill", *words, *WHO, "--json").json
    assert (killed["scope"], killed["subject"], killed["by"]) == (scope.value, subject, "ana")
    (switch,) = switches(store, clock)
    assert (switch.scope, switch.subject, switch.kind) == (scope, subject, SwitchKind.KILL)
    assert (switch.actor, switch.reason) == ("ana", "looked at the remote")
    assert typed("lift", *words, *WHO, "--json").json["lifted"] is True
    assert switches(store, clock) == ()
    assert typed("lift", *words, *WHO, "--json").json["lifted"] is False


def test_a_kill_ends_by_itself(typed, store, clock):
    assert typed("kill", "tenant", "acme", *WHO, "--for-s", "60", "--json").json["expires_at"] == "2023-11-14 22:14:20Z"
    clock.advance(61)
    assert switches(store, clock) == ()


def test_safe_mode(typed, store, clock):
    assert "safe mode is on" in typed("safe-mode", "on", *WHO).out
    (switch,) = switches(store, clock)
    assert (switch.scope, switch.kind) == (SwitchScope.GLOBAL, SwitchKind.SAFE_MODE)
    assert "safe mode is off" in typed("safe-mode", "off", *WHO).out
    assert switches(store, clock) == ()
    assert "was not on" in typed("safe-mode", "off", *WHO).out


@pytest.mark.parametrize(
    "args",
    [
        ["kill", *WHO],
        ["kill", "everything", *WHO],
        ["kill", "global", "acme", *WHO],
        ["kill", "tenant", *WHO],
        ["kill", "tenant", "acme", "beta", *WHO],
        ["kill", "--scope", "tenant", *WHO],
        ["kill", "global", "--by", "ana"],
        ["kill", "global", "--reason", "x"],
        ["kill", "global", *WHO, "--for-s", "0"],
        ["lift", "global", "--by", "ana"],
        ["safe-mode", "perhaps", *WHO],
        ["safe-mode", "on", "--by", "ana"],
    ],
)
def test_a_switch_that_is_not_clear_is_a_usage_error_and_sets_nothing(typed, store, clock, args):
    assert typed(*args).code == 2
    assert switches(store, clock) == ()


@pytest.mark.parametrize("args", [["tool", "a b"], ["global", "--by", " "]])
def test_a_switch_with_empty_or_impossible_words(typed, store, clock, args):
    said = typed("kill", *args, *(("--reason", "x") if "--by" in args else WHO))
    assert said.code == 1
    assert switches(store, clock) == ()


@pytest.mark.process
def test_the_installed_command_acts_on_the_store_of_another_process(store):
    command = Path(sys.executable).parent / "interlock"
    opened = SqliteStore(store)
    try:
        done = subprocess.run(
            [command, "kill", "agent", "triage", "--by", "ana", "--reason", "storm"],
            cwd=store.parent, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (switch,) = asyncio.run(opened.switches.read()).switches
        assert (switch.scope, switch.subject) == (SwitchScope.AGENT, "triage")
    finally:
        opened.close()


def test_commands_to_type_name_the_store_that_was_named(typed, store):
    moved = store.rename(store.with_name("the other.db"))
    option = f"--store '{moved}'"
    assert f"--not-performed --by YOU --reason WHY {option}" in typed("doubts", "--store", moved).out
    assert f"--done RESULT --by YOU --reason WHY {option}" in typed("doubts", "--store", moved).out
    assert f"--by YOU {option}" in typed("approvals", "list", "--store", moved).out
    assert option in typed("show", "run_doubt", "--store", moved).out
    assert option in typed("doubts", "--json", "--store", moved).json[0]["settle"]
