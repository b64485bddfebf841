"""Verb `explain`: the decision tree walked over one run of the store, and what to type next."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import typer

from interlock.cli.opening import Store, in_store
from interlock.cli.options import ConfigOption, JsonOption, StoreOption
from interlock.cli.output import code, command, print_json, print_table, print_text, usd
from interlock.cli.records import reason_look
from interlock.core.categories import MODEL, Category, category_of
from interlock.core.errors import ConfigError
from interlock.core.reasons import StopReason
from interlock.forensics.diagnosis import Diagnosis, diagnose
from interlock.forensics.questions import Answers, answers
from interlock.forensics.store_runs import run_of_row
from interlock.forensics.tree import ELSE, Turned
from interlock.journal.store import RunRow

__all__ = ["app"]

app = typer.Typer()

_STEPS_SHOWN = 12


class _Found(NamedTuple):
    row: RunRow
    diagnosis: Diagnosis
    doubts: int


@app.callback()
def _verbs() -> None:
    """Keep `explain` a verb of its own although it is the only one here."""


@app.command()
def explain(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Id of the run; the newest when left out.")] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Walk the decision tree over a run: the path taken, four answers, the category, and what to type next."""

    async def read(opened: Store) -> _Found:
        return await _find(opened, run)

    found = in_store(store, config, read)
    said = answers(found.diagnosis.run)
    commands = _commands(found, store)
    if as_json:
        print_json(_facts(found, said, commands))
    else:
        _print(found, said, commands)


async def _find(opened: Store, run_id: str | None) -> _Found:
    if run_id is None:
        newest = await opened.runs(limit=1)
        if not newest:
            raise ConfigError("there are no runs in this store yet")
        run_id = newest[0].run_id
    row = await opened.run(run_id)
    if row is None:
        raise ConfigError(f"no run has the id {run_id!r}; `interlock runs` lists them")
    calls = await opened.calls_of(row.run_id)
    run = run_of_row(row, calls, await opened.claims_of(row.root_run_id))
    return _Found(row, diagnose(run), run.doubts)


def _category(found: _Found) -> int | str | None:
    """Return the category as the live verdict has it; None for a run that did not fail, or has not ended."""
    if found.row.reason is None:
        return None
    if found.diagnosis.verdict != MODEL:
        category = found.diagnosis.category
        return None if category is None else int(category)
    return category_of(StopReason(found.row.reason), doubts=bool(found.doubts))


def _runbook(found: _Found) -> str | None:
    reason = found.row.reason
    return None if reason in {None, StopReason.SUCCESS} else reason


def _commands(found: _Found, store: str | None) -> list[str]:
    """Return what to type next, the most urgent first."""
    made = []
    category = _category(found)
    if found.doubts:
        made.append(command(store, "doubts"))
    if found.row.reason == StopReason.APPROVAL_PENDING:
        made.append(command(store, "approvals", "list"))
    if (runbook := _runbook(found)) is not None:
        made.append(command(None, "runbook", runbook))
    made.append(command(store, "show", found.row.run_id))
    if category == Category.UNBOUNDED_LOOP:
        made.append(command(store, "runs", "--reason", str(found.row.reason)))
    return made


def _facts(found: _Found, said: Answers, commands: list[str]) -> dict[str, Any]:
    return {
        "run_id": found.row.run_id,
        "state": found.row.state.value,
        "stop_reason": found.row.reason,
        "category": _category(found),
        "verdict": found.diagnosis.verdict,
        "confidence": found.diagnosis.confidence,
        "path": [_turn_facts(turned) for turned in _walked(found.diagnosis)],
        "evidence": [finding.to_dict() for finding in found.diagnosis.evidence],
        "answers": said.to_dict(),
        "runbook": _runbook(found),
        "next": commands,
    }


def _walked(diagnosis: Diagnosis) -> tuple[Turned, ...]:
    """Return the questions up to the first yes."""
    taken = []
    for turned in diagnosis.path:
        taken.append(turned)
        if turned.yes:
            break
    return tuple(taken)


def _turn_facts(turned: Turned) -> dict[str, Any]:
    return {
        "question": turned.branch.question,
        "answer": "yes" if turned.yes else "no",
        "category": int(turned.branch.category),
        "steps": sorted({finding.step for finding in turned.findings}),
        "because": [finding.why for finding in turned.findings[:_STEPS_SHOWN]],
    }


def _print(found: _Found, said: Answers, commands: list[str]) -> None:
    row = found.row
    ended = row.reason if row.reason is not None else f"{row.state.value}, not ended"
    print_text((row.run_id, "bold"), "  ", (ended, reason_look(row.reason)))
    category = _category(found)
    if category is None:
        print_text("no failure: " + ("it has not ended" if row.reason is None else "it came to its end, or waits"))
    elif category == MODEL:
        print_text(("model or task error", "yellow"), f": {ELSE}")
    else:
        print_text((f"category {category}: {Category(int(category)).title}", "red"))
    print_text("")
    print_text(("the tree", "bold"))
    for turned in _walked(found.diagnosis):
        _print_turn(turned)
    print_text("")
    _print_answers(said)
    print_text("")
    for number, each in enumerate(commands):
        print_text("next: " if number == 0 else "      ", code(each))


def _print_turn(turned: Turned) -> None:
    answer = ("yes", "red") if turned.yes else ("no", "green")
    print_text("  ", turned.branch.question, " ", answer)
    for finding in [f for f in turned.findings if f.decides or not turned.yes][:_STEPS_SHOWN]:
        about = f"{finding.tool} {finding.args_hash[:8]}".strip()
        print_text((f"      step {finding.step}{about and f' {about}'}: {finding.why}", "dim"))


def _print_answers(said: Answers) -> None:
    print_text(("which step looped?", "bold"))
    for repeat in said.looped:
        steps = ", ".join(map(str, repeat.steps[:_STEPS_SHOWN])) + (", …" if len(repeat.steps) > _STEPS_SHOWN else "")
        print_text(f"  {repeat.tool} {repeat.args_hash[:8]}: {len(repeat.steps)} times, in steps {steps}")
    if said.stopped_at is not None:
        print_text(f"  a loop rule refused it in step {said.stopped_at}")
    if not said.looped:
        print_text("  none: no call came twice with the same arguments")
    print_text(("which tool is slow or failing?", "bold"))
    if said.tools:
        rows = [
            (f"  {name}", str(t.calls), str(t.failed), str(t.refused), _seconds(t.seconds), _seconds(t.slowest_s))
            for name, t in said.tools.items()
        ]
        columns = ("  tool", "calls", "failed", "refused", "in all", "slowest")
        print_table(columns, rows, numbers=columns[1:])
    else:
        print_text("  no tool was called")
    print_text(("when did budgets trigger?", "bold"))
    for step, reason in said.budgets:
        print_text(f"  {reason}" + ("" if step is None else f" in step {step}"))
    if not said.budgets:
        print_text("  none did")
    print_text(("what did it cost?", "bold"))
    used = f"{said.steps} steps, {said.calls} calls"
    print_text(f"  {usd(said.cost_usd)}, {used}, {_seconds(said.seconds)}")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"
