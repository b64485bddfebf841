"""Verb `show`: why one run ended, what it used, and its calls as a waterfall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from interlock.cli.claims import claim_facts, evidence_line, settle_command
from interlock.cli.opening import Store, in_store
from interlock.cli.options import ConfigOption, JsonOption, StoreOption
from interlock.cli.output import Cell, code, note, print_json, print_table, print_text, usd, when
from interlock.cli.records import reason_look, run_facts, trace_of
from interlock.cli.waterfall import Line, waterfall
from interlock.core.errors import ConfigError
from interlock.core.reasons import EXIT_CODES, StopReason
from interlock.journal.ownership import Attempt
from interlock.journal.store import Claim, ClaimState, RunRow

__all__ = ["app"]

app = typer.Typer()

BAR = 32
SHOWN = 60
_GOOD = {"success": "green", "replayed": "cyan", "repeated": "cyan"}
_NO = frozenset({"denied", "refused", "stopped", "invalid_arguments", "fenced"})


class _Found(NamedTuple):
    run: RunRow
    calls: list[Mapping[str, Any]]
    claims: list[Claim]
    attempts: list[Attempt]


@app.callback()
def _verbs() -> None:
    """Keep `show` a verb of its own although it is the only one here."""


@app.command()
def show(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Id of the run; the newest when left out.")] = None,
    all_calls: Annotated[bool, typer.Option("--all", help=f"All calls, not the last {SHOWN}.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with the code of the run's stop reason.")
    ] = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run: why it ended, what it used, its calls as a waterfall, and what it left open."""

    async def read(opened: Store) -> _Found:
        return await _find(opened, run)

    found = in_store(store, config, read)
    if as_json:
        # The record first, field for field; then what the store knows beside it.
        record = dict(found.run.record or {}) | {"trace": found.calls}
        known = run_facts(found.run) | {"attempted": [_attempt_facts(attempt) for attempt in found.attempts]}
        print_json(record | known | {"claims": [claim_facts(claim, store) for claim in found.claims]})
    else:
        _print(found, SHOWN if not all_calls else len(found.calls), store)
    if exit_code and found.run.reason is not None:
        raise typer.Exit(EXIT_CODES[StopReason(found.run.reason)])


def _attempt_facts(attempt: Attempt) -> dict[str, Any]:
    return {
        "owner": attempt.owner,
        "fence": attempt.fence,
        "started_at": when(attempt.started_at),
        "ended_at": when(attempt.ended_at) or None,
        "ended_as": attempt.ended_as,
    }


async def _find(opened: Store, run_id: str | None) -> _Found:
    if run_id is None:
        newest = await opened.runs(limit=1)
        if not newest:
            raise ConfigError("there are no runs in this store yet")
        run_id = newest[0].run_id
    row = await opened.run(run_id)
    if row is None:
        raise ConfigError(f"no run has the id {run_id!r}; `interlock runs` lists them")
    calls: Sequence[Mapping[str, Any]] = trace_of(row.record) or await opened.calls_of(run_id)
    claims = [claim for claim in await opened.claims_of(row.root_run_id) if claim.path == row.path]
    return _Found(row, list(calls), claims, await opened.leases.attempts_of(row.root_run_id))


def _print(found: _Found, shown: int, store: str | None) -> None:
    row, record = found.run, found.run.record or {}
    ended = row.reason if row.reason is not None else row.state.value
    parked = " (parked)" if row.state.value == "parked" else ""
    print_text((row.run_id, "bold"), "  ", (f"{ended}{parked}", reason_look(row.reason)))
    facts = run_facts(row)
    place = f", part {row.path} of {row.root_run_id}" if row.path else ""
    print_text(f"{row.agent} for {row.tenant_id}, request {row.request_id}{place}")
    print_text(f"started {facts['started_at']}" + (f", ended {facts['ended_at']}" if facts["ended_at"] else ""))
    if record:
        tokens = f", {record['tokens']:,} tokens" if record.get("tokens") else ""
        used = f"{record.get('steps')} steps, {record.get('tool_calls')} calls{tokens}"
        print_text(f"{used}, {usd(record.get('cost_usd'))}, {record.get('duration_s')} s")
    _print_details(record)
    if found.calls:
        _print_calls(found.calls, shown, int(record.get("trace_dropped") or 0))
    _print_claims(found.claims, store)
    if row.reason not in {None, StopReason.SUCCESS}:
        print_text("what to do: ", code(f"interlock runbook {row.reason}"))


def _print_details(record: Mapping[str, Any]) -> None:
    details = record.get("details")
    for name, value in details.items() if isinstance(details, Mapping) else ():
        if value not in (None, "", [], {}):
            print_text((f"  {name}: ", "dim"), str(value))
    if record.get("would_have"):
        print_text(("would have: ", "yellow"), ", ".join(record["would_have"]))


def _print_calls(calls: list[Mapping[str, Any]], shown: int, dropped: int) -> None:
    lines = waterfall(calls, BAR)
    hidden = max(0, len(lines) - shown)
    print_text("")
    rows = [_cells(line) for line in lines[hidden:]]
    print_table(("call", "step", "tool", "args", "status", "took", "", ""), rows, numbers=("call", "step", "took"))
    if dropped:
        note(f"{dropped} earlier calls were not kept in the record")
    if hidden:
        note(f"{hidden} earlier calls not shown; --all shows them")


def _cells(line: Line) -> tuple[Cell, ...]:
    look = _GOOD.get(line.status, "yellow" if line.status in _NO else "red")
    bar = " " * line.start + "\N{FULL BLOCK}" * line.length
    return (
        str(line.seq),
        line.step,
        line.tool,
        (line.args, "dim"),
        (line.status, look),
        line.duration,
        (bar, look),
        line.note,
    )


def _print_claims(claims: list[Claim], store: str | None) -> None:
    for claim in claims:
        if claim.state is ClaimState.DONE and claim.verified:
            continue
        state = "done, answer withheld" if claim.state is ClaimState.DONE else claim.state.value.replace("_", " ")
        print_text((claim.tool, "bold"), f" call {claim.seq}: ", (state, "yellow"), f"; {evidence_line(claim)}")
        if claim.state is ClaimState.IN_DOUBT:
            print_text("  close it: ", code(settle_command(claim, store)))
