"""A loop by hand over chat completions: it has no hooks, so functions stand around what asks and around each tool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conformance.column import Job
from conformance.columns.chat import asked, bare

from benchmarks.empty_hooks.functions import passing_on

__all__ = ["hooked"]


async def hooked(job: Job) -> Any:
    """Run the loop with functions that pass on."""
    tools = tuple(replace(tool, fn=passing_on(tool.fn)) for tool in job.tools)
    return await bare(replace(job, tools=tools), passing_on(asked))
