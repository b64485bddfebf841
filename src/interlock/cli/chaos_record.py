"""Verb `chaos record`: a recorded run of the store as a golden task, on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import typer

from interlock.chaos.recording import Recording, recorded
from interlock.cli.opening import Store, in_store
from interlock.cli.options import ConfigOption, JsonOption, StoreOption
from interlock.cli.output import note, print_json
from interlock.cli.records import trace_of
from interlock.core.errors import ConfigError
from interlock.record.redact import Redactor

__all__ = ["record"]


def record(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")],
    content: Annotated[
        bool, typer.Option("--content", help="With what the agent was given, where the store has kept it; redacted.")
    ] = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run as a golden task: its faults as its calls met them, its end as the expectation.

    It goes to standard output: keep it as a file, and `interlock chaos run` tries it on your agent. No content is
    in it, but for `--content`.
    """

    async def read(opened: Store) -> Recording:
        return await _recording(opened, run, content=content)

    found = in_store(store, config, read)
    for line in found.notes:
        note(line)
    if as_json:
        print_json(dict(found.suite))
    else:
        sys.stdout.write(found.as_yaml())


async def _recording(opened: Store, run_id: str, *, content: bool) -> Recording:
    row = await opened.run(run_id)
    if row is None:
        raise ConfigError(f"no run has the id {run_id!r}; `interlock runs` lists them")
    if row.path:
        raise ConfigError(f"{run_id} is a part of {row.root_run_id}: record that one")
    if row.reason is None:
        raise ConfigError(f"{run_id} has not ended: record it when it has")
    calls = trace_of(row.record) or await opened.calls_of(run_id)
    claims = [claim for claim in await opened.claims_of(run_id) if claim.run_id == run_id and not claim.path]
    given: Mapping[str, Any] | None = None
    if content:
        kept = await opened.leases.task_of(run_id)
        if kept is None:
            note("the store has not kept what this run was given (no request id, replay: off, or purged)")
        else:
            given = Redactor().value(orjson.loads(kept))
    return recorded(row, calls, claims, given)
