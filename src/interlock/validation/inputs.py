"""Arguments are checked against the schema before anything is asked, sent or claimed.

The gateway validates before the funnel starts, because the call's digest is taken of the validated
arguments; this guard raises what it found at the place where refusals about arguments belong.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from interlock.core.calls import Answer, Call, Proceed, RunFacts, ToolSpec
from interlock.core.errors import InvalidArguments
from interlock.validation.mismatch import SchemaMismatch, explain

__all__ = ["Inputs", "invalid_arguments"]

I = TypeVar("I", bound=RunFacts)  # noqa: E741 - one letter, as for every guard


class Inputs:
    """Guard: refuses a call whose arguments do not fit; the model may correct them."""

    def __call__(self, tool: ToolSpec, proceed: Proceed[I]) -> Proceed[I]:  # noqa: ARG002 - the same for every tool
        def inputs(call: Call[I]) -> Awaitable[Answer]:
            if call.invalid is not None:
                call.refuse(call.invalid)
            return proceed(call)

        return inputs


def invalid_arguments(tool_name: str, mismatch: SchemaMismatch) -> InvalidArguments:
    """Return the refusal for arguments that do not fit: what the model may correct, without what it sent."""
    return InvalidArguments(
        f"{tool_name}: {mismatch}",
        for_model=f"The arguments do not fit the tool's schema ({explain(mismatch.errors)}). It was not executed.",
        details={"errors": mismatch.errors},
    )
