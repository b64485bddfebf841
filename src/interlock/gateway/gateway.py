"""The one way to a tool: a proposal in, an answer or a named error out."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from interlock.budget.loops import key_of
from interlock.core.calls import Answer, Call, Effect, Proceed, ToolSpec
from interlock.core.canonical import NotCanonical, canonical_json, hasher
from interlock.core.errors import InterlockError, InvalidArguments
from interlock.gateway.pipeline import Funnel
from interlock.gateway.scope import RunScope
from interlock.gateway.tape import Tape, restored
from interlock.gateway.tools import Registry
from interlock.gateway.verbs import inside_call
from interlock.journal.replay import CallRecord
from interlock.validation.inputs import invalid_arguments
from interlock.validation.mismatch import SchemaMismatch
from interlock.validation.outputs import rebuild

__all__ = ["Gateway", "Perform"]

# Makes one attempt of a call.
Perform = Callable[[Call[Any]], Awaitable[Answer]]

# Names come from a model: what is kept for unknown ones is bounded.
UNKNOWN_NAMES_KEPT = 256
NOT_JSON = {
    "loc": [],
    "type": "json",
    "msg": "NaN, bytes, cycles, deep nesting and integers beyond 64 bits are not JSON",
}


async def _nowhere(**_: Any) -> Any:
    raise LookupError("no such tool")


class Gateway:
    """Proposals to the funnel.

    Args:
        funnel: The guards.
        registry: The tools.
        settled: Returns a tool as the configuration sees it (effects, writes, scopes).
        secret: Key of the argument digests.
        max_args_bytes: Canonical arguments beyond this size are refused.
    """

    def __init__(
        self,
        funnel: Funnel,
        registry: Registry,
        *,
        settled: Callable[[ToolSpec], ToolSpec],
        secret: bytes,
        max_args_bytes: int = 1_000_000,
    ) -> None:
        self._funnel = funnel
        self._registry = registry
        self._settled = settled
        self._digest = hasher(secret)
        self._max_args_bytes = max_args_bytes
        self._known: dict[str | ToolSpec, tuple[ToolSpec, Proceed[RunScope]]] = {}
        self._unknown: dict[str, tuple[ToolSpec, Proceed[RunScope]]] = {}

    async def call(
        self,
        run: RunScope,
        name: str | ToolSpec,
        args: Mapping[str, Any],
        batch: int,
        tool_call_id: str | None = None,
        perform: Perform | None = None,
    ) -> Answer:
        """Pass one proposed call through the funnel.

        Args:
            run: The run it belongs to.
            name: Tool name as proposed; unknown names are refused in their place. Or a tool of an adapter.
            args: Arguments as proposed.
            batch: Calls of one batch do not count against each other.
            tool_call_id: The model's own id of the call, for the record.
            perform: Makes one attempt of this very call, in place of the tool's function.

        Raises:
            InterlockError: The call was refused, failed, or cannot be believed.
        """
        found = self._known.get(name)
        tool, funnel = found if found is not None else self._fold(name)
        name = tool.name
        invalid = None
        try:
            schema = tool.inputs
            if schema is None:
                valid = dict(args)
                args_json = canonical_json(valid)
            else:
                valid = schema.validate(args)
                args_json = schema.dump(valid)
        except (SchemaMismatch, NotCanonical, RecursionError) as error:
            valid, args_json, invalid = _unfit(tool, args, error)
        if len(args_json) > self._max_args_bytes:
            invalid = InvalidArguments(
                f"{name}: arguments of {len(args_json):,} bytes (tools.max_args_bytes = {self._max_args_bytes:,})",
                for_model=f"The arguments are larger than {self._max_args_bytes:,} bytes. It was not executed.",
            )
        run.seq = seq = run.seq + 1
        effect = tool.effect
        if not isinstance(effect, Effect):
            effect = tool.effect_of(valid)
        call = Call(
            run, tool, valid, args_json, self._digest(args_json), effect, seq, run.turn, batch, invalid, tool_call_id
        )
        call.perform = perform
        if run.tape is not None:
            return await self._on_tape(call, funnel, run.tape)
        try:
            return await funnel(call)
        except InterlockError as error:
            error.executed = call.attempts > 0
            raise

    async def _on_tape(self, call: Call[RunScope], funnel: Proceed[RunScope], tape: Tape) -> Answer:
        """Answer a call from what an earlier attempt of its run recorded; or make it, and record it."""
        record = tape.find(call)
        if record is not None:
            tool, guards = call.tool, self._funnel
            return await guards.recorder(tool, guards.taint(tool, guards.state(tool, _from_record(record))))(call)
        outer = inside_call.get()
        inside_call.set(call.run)
        try:
            answer = await funnel(call)
        except InterlockError as error:
            error.executed = call.attempts > 0
            tape.keep(call, None, error)
            raise
        except CancelledError:
            if call.run.stop is None:
                tape.keep_cut(call)
            raise
        except Exception as error:
            # The tool's own where nothing is refused, or a fault of a guard: the agent may go on from it all the same.
            tape.keep(call, None, error)
            raise
        finally:
            inside_call.set(outer)
        tape.keep(call, answer, None)
        return answer

    def tool(self, name: str | ToolSpec) -> ToolSpec:
        """Return a tool as the funnel sees it: registered and settled by the configuration, or unknown."""
        return (self._known.get(name) or self._fold(name))[0]

    def declared(self, name: str) -> ToolSpec | None:
        """Return what the code registered under this name, or under the name that a framework makes of it."""
        return self._registry.meant(name)

    def _fold(self, name: str | ToolSpec) -> tuple[ToolSpec, Proceed[RunScope]]:
        spec = name if isinstance(name, ToolSpec) else self._registry.get(name)
        if spec is None:
            return self._fold_unknown(str(name))
        tool = self._settled(spec)
        found = self._known[name] = (tool, self._funnel.fold(tool))
        return found

    def _fold_unknown(self, name: str) -> tuple[ToolSpec, Proceed[RunScope]]:
        found = self._unknown.get(name)
        if found is None:
            tool = self._settled(ToolSpec(name, _nowhere, is_async=True, known=False))
            if len(self._unknown) >= UNKNOWN_NAMES_KEPT:
                self._unknown.clear()
            found = self._unknown[name] = (tool, self._funnel.fold(tool))
        return found


def _from_record(record: CallRecord) -> Proceed[RunScope]:
    """Return what stands for the rest of the funnel: the recorded outcome, fed to loops and meter, not judged again."""

    async def replayed(call: Call[RunScope]) -> Answer:
        run = call.run
        answer = None
        if record.value is not None:
            answer = Answer(rebuild(call.tool, record.value), record.value, "replayed")
        run.meter.count_answered()
        key, output = key_of(call.tool.name, call.digest), hash(record.value or record.error)
        run.loops.settle(key, output, call.batch, call.turn or call.seq, answer)
        if answer is not None:
            return answer
        raise restored(record.error or b"{}")

    return replayed


def _unfit(tool: ToolSpec, args: Mapping[str, Any], error: Exception) -> tuple[dict[str, Any], bytes, InvalidArguments]:
    """Return what stands for arguments that do not fit: as proposed where they are JSON, else nothing."""
    try:
        raw = dict(args)
        args_json = canonical_json(raw)
    except (NotCanonical, TypeError, ValueError):
        raw, args_json = {}, b"{}"
    if isinstance(error, SchemaMismatch):
        return raw, args_json, invalid_arguments(tool.name, error)
    # What is no JSON is told without its place: keys are content too.
    return raw, args_json, invalid_arguments(tool.name, SchemaMismatch([NOT_JSON], message=str(error)))
