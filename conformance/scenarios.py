"""The scenarios: each written once, and played through every framework, bare and guarded.

Every model here is obedient: it repeats after an error and does as it is told. Every number in `wanted` is
counted at the remote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.conversation import Script, Seen, Turn, Use
from conformance.scenario import Delivery, Given, Scenario
from conformance.world import Fault, Plan

__all__ = ["RESEARCHER", "SCENARIOS", "TRIAGE", "configuration", "scenario"]

TRIAGE = "triage"
RESEARCHER = "researcher"
TICKET = {"title": "Login outage", "description": "Users cannot log in."}
OTHER = {"title": "Export fails", "description": "The export stops half-way."}
ROW = {"table": "users", "value": "role=admin"}
REFUND = {"order_id": "order-17", "amount": 40}
ONE_TICKET = {"ticket:Login outage": 1}
ADDRESS = "tickets.example/"
TRIES = 12
CALLS = 40

TICKET_KEYED = (Given("ticket_create", keyed=True), Given("row_append"), Given("search_read"))
RESEND = {"tools": {"writes": {"ticket_create": {"on_unknown": "resend"}}}}
NO_ROWS = {"tools": {"deny": ["row_append"]}}


def configuration(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that all scenarios share, with one scenario's changes."""
    price = {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10.0}
    models = ("gpt-4o", "openai:gpt-4o", "claude-sonnet-5-5", "anthropic:claude-sonnet-5-5")
    shared: dict[str, Any] = {
        "lease_ttl_s": 1.0,
        "agent": {"budgets": {"max_steps": 60, "max_tool_calls": 80, "max_seconds": 120, "max_usd": 5.0}},
        "tools": {
            "allow": [
                "ticket_create",
                "row_append",
                "refund_create",
                "note_create",
                "search_read",
                "stock_check",
                RESEARCHER,
            ],
            "effects": {"*_read": "read", RESEARCHER: "read"},
            "retries": {"max_attempts": 3, "backoff_ms": [1]},
            "timeouts_s": {"default": 30, RESEARCHER: 120},  # a whole agent behind one tool call
        },
        "approvals": {"wait_s": 0},
        "prices": dict.fromkeys(models, price),
        "logging": {"level": "error"},
    }
    return _merged(shared, changes)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(one)
    for name, value in other.items():
        both = isinstance(value, Mapping) and isinstance(found.get(name), Mapping)
        found[name] = _merged(found[name], value) if both else value
    return found


# -- scripts


def insists(tool: str, args: Mapping[str, Any], done: str = ADDRESS, tries: int = TRIES) -> Script:
    """Use a tool until its answer says that it is done, at most so many times."""

    def script(seen: Seen) -> Turn:
        if done in seen.last(tool) or seen.times(tool) >= tries or seen.turn > CALLS:
            return Turn(text=f"{tool}: {seen.last(tool)[:80]}")
        return Turn((Use(tool, args),))

    return script


def steps(*turns: tuple[Use, ...], then: Script | None = None) -> Script:
    """Take these turns one after the other; then go on with a script, or end."""

    def script(seen: Seen) -> Turn:
        if seen.turn <= len(turns):
            return Turn(turns[seen.turn - 1])
        return Turn(text="Done.") if then is None else then(seen)

    return script


def rows(count: int, tokens: Mapping[int, int] | None = None) -> Script:
    """Append line after line; the answers of some turns are of a given length."""

    def script(seen: Seen) -> Turn:
        number = seen.times("row_append") + 1
        if number > count or seen.turn > CALLS:
            return Turn(text="All lines are there.")
        used = (tokens or {}).get(seen.turn, 50)
        return Turn((Use("row_append", {"table": "log", "value": f"line {number}"}),), output_tokens=used)

    return script


def searches(*queries: str) -> Script:
    """Search, again and again."""

    def script(seen: Seen) -> Turn:
        if seen.turn > CALLS:
            return Turn(text="I could not find it.")
        return Turn((Use("search_read", {"query": queries[(seen.turn - 1) % len(queries)]}),))

    return script


def reworded(seen: Seen) -> Turn:
    """Create a ticket and note it, in other words at each delivery: a model does not say the same thing twice."""
    again = "" if seen.delivery == 1 else f", told {seen.delivery} times"
    if seen.turn == 1:
        return Turn((Use("ticket_create", TICKET | {"title": f"Login outage{again}"}),))
    if seen.turn == 2:
        return Turn((Use("row_append", {"table": "log", "value": f"ticket made{again}"}),))
    return Turn(text="Done.")


def delegates(seen: Seen) -> Turn:
    """Ask the researcher, and then do again what the researcher has done."""
    if seen.turn == 1:
        properties = seen.offered.get(RESEARCHER, {}).get("properties") or {"task": {}}
        name = next((n for n, p in properties.items() if p.get("type") == "string"), next(iter(properties)))
        return Turn((Use(RESEARCHER, {name: "Look into the login outage."}),))
    if seen.turn == 2:
        return Turn((Use("ticket_create", TICKET),))
    return Turn(text="Done.")


def use(tool: str, args: Mapping[str, Any], **more: Any) -> tuple[Use, ...]:
    """Return a turn of one tool use."""
    return (Use(tool, args, **more),)


APPROVED = {"tools": {"writes": {"refund_create": {"approval": "required", "on_unknown": "resend"}}}}
REFUNDS = (Given("refund_create", keyed=True),)
REFUND_ONCE = insists("refund_create", REFUND, tries=1)
KEYED_BOTH = (Given("ticket_create", keyed=True), Given("row_append", keyed=True))
RESEND_BOTH = {"tools": {"writes": dict.fromkeys(("ticket_create", "row_append"), {"on_unknown": "resend"})}}
DONE_ONCE = {"ticket:Login outage": 1, "row:ticket made": 1}
UNKNOWN = Delivery(("outcome_unknown",))
SAME_AGAIN = Delivery(("outcome_unknown",), if_failed=True)

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "lost_answer",
        "lost answer on a write, again and again",
        insists("ticket_create", TICKET),
        ONE_TICKET,
        plans={"ticket_create": Plan(then=Fault.LOST)},
        deliveries=(UNKNOWN,),
        lost_answer=True,
    ),
    Scenario(
        "lost_answer_keyed",
        "lost answer, the remote dedupes on a key",
        insists("ticket_create", TICKET),
        ONE_TICKET,
        given=TICKET_KEYED,
        plans={"ticket_create": Plan((Fault.LOST,))},
        config=RESEND,
        deliveries=(Delivery(), Delivery(if_failed=True)),
        lost_answer=True,
    ),
    Scenario(
        "lost_answer_redelivered",
        "lost answer, the queue delivers again",
        insists("ticket_create", TICKET),
        ONE_TICKET,
        plans={"ticket_create": Plan((Fault.LOST,))},
        deliveries=(UNKNOWN, SAME_AGAIN),
        lost_answer=True,
    ),
    Scenario(
        "lost_answer_own_retries",
        "lost answer, the framework's own retries on",
        insists("ticket_create", TICKET),
        ONE_TICKET,
        plans={"ticket_create": Plan((Fault.LOST, Fault.LOST))},
        deliveries=(UNKNOWN,),
        lost_answer=True,
        own_retries=True,
    ),
    Scenario(
        "rate_limited",
        "429 with Retry-After",
        insists("ticket_create", TICKET),
        ONE_TICKET,
        plans={"ticket_create": Plan((Fault.RATE_LIMITED,))},
    ),
    Scenario(
        "late_write",
        "timeout of a sync write that lands later",
        insists("ticket_create", TICKET),
        ONE_TICKET,
        given=(Given("ticket_create", sync=True, timeout_s=0.3),),
        plans={"ticket_create": Plan(then=Fault.LATE)},
        config={"tools": {"timeouts_s": {"ticket_create": 0.3}}},
        deliveries=(UNKNOWN, Delivery(before="wait", if_failed=True)),
        lost_answer=True,
    ),
    Scenario(
        "batch_with_refusal",
        "parallel batch with one refusal",
        steps((Use("ticket_create", TICKET), Use("row_append", ROW), Use("ticket_create", OTHER))),
        {"ticket:Login outage": 1, "ticket:Export fails": 1},
        config=NO_ROWS,
    ),
    Scenario(
        "denied_tool",
        "denied tool, the model insists",
        insists("row_append", ROW),
        {},
        config=NO_ROWS,
        deliveries=(Delivery(("tool_denied",)),),
    ),
    Scenario(
        "hidden_tool",
        "tool hidden by a missing scope, called anyway",
        steps(use("row_append", ROW), use("ticket_create", TICKET)),
        ONE_TICKET,
        config={"tools": {"scopes": {"row_append": ["admin"]}}},
    ),
    Scenario(
        "unknown_tool",
        "unknown tool",
        steps(use("ticket_purge", {"all": True}), use("ticket_create", TICKET)),
        ONE_TICKET,
        correctable=True,
    ),
    Scenario(
        "invalid_arguments",
        "invalid arguments",
        steps(use("ticket_create", {"title": 7, "text": "?"}), use("ticket_create", TICKET)),
        ONE_TICKET,
        correctable=True,
    ),
    Scenario(
        "malformed_json",
        "arguments that are not JSON",
        steps(use("ticket_create", {}, raw='{"title": "Login outage", "descr'), use("ticket_create", TICKET)),
        ONE_TICKET,
        correctable=True,
    ),
    Scenario(
        "repeated_call_id",
        "one tool_call_id for two calls",
        steps(use("ticket_create", TICKET, call_id="call_1_1"), use("ticket_create", OTHER, call_id="call_1_1")),
        {"ticket:Login outage": 1, "ticket:Export fails": 1},
    ),
    Scenario(
        "unknown_effect",
        "tool of which nobody says what it does (requests)",
        insists("stock_check", {"item": "cable"}, done="in_stock"),
        {"stock_check": 1},
        given=(Given("stock_check"),),
        plans={"stock_check": Plan((Fault.LOST,))},
        deliveries=(UNKNOWN, SAME_AGAIN),
        counts="requests",
    ),
    Scenario(
        "arguments_filled_in",
        "one write, proposed without and with a default",
        steps(use("note_create", {"text": "outage"}), use("note_create", {"text": "outage", "urgent": False})),
        {"note:outage": 1},
        given=(Given("note_create"),),
    ),
    Scenario(
        "changed_schema",
        "changed output schema",
        insists("ticket_create", TICKET),
        ONE_TICKET,
        plans={"ticket_create": Plan(then=Fault.NEW_SHAPE)},
        config={"tools": {"invariants": {"ticket_create": ['output.url != ""']}}},
        deliveries=(Delivery(("tool_output_invalid",)),),
    ),
    Scenario(
        "runaway",
        "runaway of identical calls (requests)",
        searches("why does the export fail"),
        {"search_read": 2},
        deliveries=(Delivery(("loop_detected",)),),
        counts="requests",
    ),
    Scenario(
        "cycle",
        "A-B-A-B cycle (requests)",
        searches("causes of the outage", "effects of the outage"),
        {"search_read": 4},
        config={"agent": {"loop_detection": {"no_progress_threshold": 20}}},
        deliveries=(Delivery(("loop_detected",)),),
        counts="requests",
    ),
    Scenario(
        "dollar_cap",
        "dollar cap mid-run",
        rows(8, {3: 200_000}),
        # The third turn is what costs too much; its calls are let through, and no further turn begins.
        {"row:line 1": 1, "row:line 2": 1, "row:line 3": 1},
        config={"agent": {"budgets": {"max_usd": 1.0}}},
        deliveries=(Delivery(("cost_budget",)),),
    ),
    Scenario(
        "kill_switch",
        "kill switch mid-run",
        rows(6),
        {"row:line 1": 1, "row:line 2": 1},
        plans={"row_append": Plan(person={2: "kill"})},
        deliveries=(Delivery(("killed",)),),
    ),
    Scenario(
        "safe_mode",
        "safe mode mid-run",
        rows(6),
        {"row:line 1": 1, "row:line 2": 1},
        plans={"row_append": Plan(person={2: "safe_mode"})},
        deliveries=(Delivery(("tool_denied",)),),
    ),
    Scenario(
        "approval_granted",
        "approval granted",
        REFUND_ONCE,
        {"refund:order-17": 1},
        given=REFUNDS,
        config=APPROVED,
        deliveries=(Delivery(("approval_pending",), leaves={}), Delivery(before="approve")),
    ),
    Scenario(
        "approval_denied",
        "approval denied",
        REFUND_ONCE,
        {},
        given=REFUNDS,
        config=APPROVED,
        deliveries=(Delivery(("approval_pending",)), Delivery(before="deny")),
    ),
    Scenario(
        "approval_expired",
        "approval expired",
        REFUND_ONCE,
        {},
        given=REFUNDS,
        config=APPROVED | {"approvals": {"wait_s": 10, "expires_s": 0.3}},
    ),
    Scenario(
        "killed_worker",
        "kill -9 and resume",
        reworded,
        DONE_ONCE,
        given=KEYED_BOTH,
        config=RESEND_BOTH,
        deliveries=(Delivery(dies="row_append"), Delivery()),
    ),
    Scenario(
        "redelivered",
        "redelivered request",
        reworded,
        DONE_ONCE,
        given=KEYED_BOTH,
        config=RESEND_BOTH,
        deliveries=(Delivery(), Delivery()),
    ),
    Scenario(
        "nested_agent",
        "nested agent",
        delegates,
        ONE_TICKET,
        config=NO_ROWS,
        nested=steps(use("ticket_create", TICKET), use("row_append", ROW)),
    ),
    Scenario(
        "streaming",
        "streaming",
        steps((Use("ticket_create", TICKET), Use("row_append", ROW)), then=insists("ticket_create", TICKET)),
        ONE_TICKET,
        given=TICKET_KEYED,
        plans={"ticket_create": Plan((Fault.LOST,))},
        config={"tools": RESEND["tools"] | NO_ROWS["tools"]},
        stream=True,
    ),
    Scenario(
        "two_tenants",
        "two tenants at once",
        steps((Use("ticket_create", TICKET), Use("row_append", ROW))),
        {"ticket:Login outage": 2, "row:role=admin": 1},
        given=KEYED_BOTH,
        config=RESEND_BOTH | {"tenants": {"globex": {"deny": ["row_append"]}}},
        tenants=("acme", "globex"),
    ),
)


def scenario(name: str) -> Scenario:
    """Return the scenario of this name.

    Raises:
        LookupError: There is none.
    """
    for one in SCENARIOS:
        if one.name == name:
            return one
    raise LookupError(f"no scenario is called {name!r}")
