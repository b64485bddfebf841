"""Verb `runs`: a table of runs, and the sum of what observing runs would have refused."""

from __future__ import annotations

from typing import Annotated

import typer

from interlock.cli.opening import Store, in_store
from interlock.cli.options import ConfigOption, JsonOption, StoreOption, TenantOption
from interlock.cli.output import note, print_json, print_table, usd, when
from interlock.cli.records import reason_look, run_facts, would_have
from interlock.core.reasons import StopReason
from interlock.journal.store import RunRow, RunState

__all__ = ["app"]

app = typer.Typer()

OBSERVED = 1_000


@app.callback()
def _verbs() -> None:
    """Keep `runs` a verb of its own although it is the only one here."""


@app.command()
def runs(
    reason: Annotated[str | None, typer.Option("--reason", metavar="REASON", help="Only this stop reason.")] = None,
    state: Annotated[
        RunState | None, typer.Option("--state", metavar="STATE", help=f"Only these: {', '.join(RunState)}.")
    ] = None,
    tenant: TenantOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, newest first (50).")] = None,
    observed: Annotated[
        bool, typer.Option("--would-have", help="Sum up what runs in `mode: observe` would have refused.")
    ] = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first; `--would-have` sums up what observing runs would have refused."""
    wanted = None if reason is None else _reason(reason)
    at_most = limit or (OBSERVED if observed else 50)

    async def read(opened: Store) -> list[RunRow]:
        return await opened.runs(tenant_id=tenant, reason=wanted, state=state, limit=at_most)

    found = in_store(store, config, read)
    if observed:
        _sum_up(found, as_json=as_json)
    elif as_json:
        print_json([run_facts(row) for row in found])
    else:
        _list(found)


def _list(found: list[RunRow]) -> None:
    columns = ("started", "run", "tenant", "agent", "stop reason", "steps", "calls", "cost", "seconds")
    rows = []
    for row in found:
        facts = run_facts(row)
        shown = row.reason if row.reason is not None else row.state.value
        rows.append(
            (
                when(row.started_at),
                row.run_id,
                row.tenant_id,
                f"{row.agent}{row.path and f' {row.path}'}",
                (shown, reason_look(row.reason)),
                _number(facts["steps"]),
                _number(facts["tool_calls"]),
                usd(facts["cost_usd"]),
                _number(facts["duration_s"]),
            )
        )
    print_table(columns, rows, numbers=("steps", "calls", "cost", "seconds"))
    note(f"{len(rows)} runs" + ("; `interlock show RUN` shows one" if rows else ""))


def _sum_up(found: list[RunRow], *, as_json: bool) -> None:
    summed = would_have(found)
    if as_json:
        entries = [
            {"reason": reason, "runs": entry.runs, "calls": entry.calls, "tools": dict(entry.tools.most_common())}
            for reason, entry in summed.items()
        ]
        print_json({"runs": len(found), "would_have": entries})
        return
    rows = [
        (
            (reason, reason_look(reason)),
            str(entry.runs),
            str(entry.calls),
            ", ".join(f"{tool} {n}" for tool, n in entry.tools.most_common(5)),
        )
        for reason, entry in summed.items()
    ]
    print_table(("would have", "runs", "calls", "tools"), rows, numbers=("runs", "calls"))
    note(f"of the last {len(found)} runs; `mode: enforce` would refuse these")


def _reason(text: str) -> str:
    try:
        return StopReason(text).value
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no stop reason; `interlock runbook --list` has them") from None


def _number(value: object) -> str:
    return "" if value is None else str(value)
