"""A tool's output is untrusted: schema, canonical JSON, size and invariants, or it goes no further.

It fails closed and is never asked for again: a write whose answer cannot be believed has happened all the
same. What fails is kept in `call.raw`, for the journal's evidence, and withheld from the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from interlock.core.calls import Answer, Call, Proceed, RunFacts, ToolSpec
from interlock.core.canonical import NotCanonical, canonical_json
from interlock.core.errors import ConfigError, ToolOutputInvalid
from interlock.validation.mismatch import SchemaMismatch

__all__ = ["OutputCheck", "OutputOptions", "Outputs", "rebuild"]

O = TypeVar("O", bound=RunFacts)  # noqa: E741 - one letter, as in every guard

_UNCHECKED = "This answer failed its checks and may be wrong: do not rely on any value in it."


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How outputs are judged.

    Attributes:
        fail_closed: False lets an invalid output through, on record and with a note to the model.
        max_bytes: Of its canonical JSON.
    """

    fail_closed: bool = True
    max_bytes: int = 1_000_000

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ConfigError("validation.output.max_bytes must be at least 1")


class OutputCheck:
    """The decision of one tool's outputs, without a run: for the guard, for lookups, for recorded traces."""

    __slots__ = ("_dump", "_invariants", "_max_bytes", "_validate")

    def __init__(self, tool: ToolSpec, max_bytes: int) -> None:
        self._validate = None if tool.output is None else tool.output.validate
        self._dump: Callable[[Any], bytes] = getattr(tool.output, "dump", canonical_json)
        self._invariants = tool.invariants
        self._max_bytes = max_bytes

    def accept(self, value: Any) -> tuple[Any, bytes]:
        """Return the validated value and its canonical JSON.

        Raises:
            SchemaMismatch: Schema, size or an invariant; or it is not JSON.
        """
        if self._validate is not None:
            value = self._validate(value)
        try:
            data = self._dump(value)
        except NotCanonical as error:
            raise _not_json(error) from None
        if len(data) > self._max_bytes:
            raise _fault(
                "too_large", f"{len(data)} bytes are more than validation.output.max_bytes ({self._max_bytes})"
            )
        for name, holds in self._invariants:
            try:
                held = bool(holds(value))
            except Exception as error:
                raise _fault("invariant", f"{name} could not be judged ({type(error).__name__})") from None
            if not held:
                raise _fault("invariant", f"{name} does not hold")
        return value, data


class Outputs:
    """Guard: only a validated output comes back, with its canonical JSON in `answer.json`."""

    def __init__(self, options: OutputOptions = OutputOptions()) -> None:
        self._options = options

    def __call__(self, tool: ToolSpec, proceed: Proceed[O]) -> Proceed[O]:
        fail_closed = self._options.fail_closed
        accept = OutputCheck(tool, self._options.max_bytes).accept

        async def outputs(call: Call[O]) -> Answer:
            answer = await proceed(call)
            try:
                answer.value, answer.json = accept(answer.value)
            except SchemaMismatch as mismatch:
                call.raw = answer.value
                _refuse(call, _invalid(tool, mismatch), fail_closed=fail_closed)
                answer.json = _json_or_none(answer.value)
                answer.note = _UNCHECKED
            return answer

        return outputs


def rebuild(tool: ToolSpec, data: bytes) -> Any:
    """Return the value whose canonical JSON was kept: the typed output, as the tool's caller first got it.

    Raises:
        ToolOutputInvalid: The tool's output type has changed since, and what was kept does not fit it.
    """
    load: Callable[[bytes], Any] = getattr(tool.output, "load", orjson.loads)
    try:
        return load(data)
    except ValueError as error:
        mismatch = error if isinstance(error, SchemaMismatch) else _fault("not_json", "what was kept is not JSON")
        raise _invalid(tool, mismatch) from None


def _refuse(call: Call[O], error: ToolOutputInvalid, *, fail_closed: bool) -> None:
    """Raise, unless the output goes on all the same: then it is on record what would have been refused."""
    if fail_closed:
        call.refuse(error)
        return
    if call.would_have is None:
        call.would_have = []
    call.would_have.append(error.reason)


def _invalid(tool: ToolSpec, mismatch: SchemaMismatch) -> ToolOutputInvalid:
    errors = mismatch.errors
    text = f"{tool.name}: its output is withheld: {mismatch} (its `output` type, invariants or validation.output)"
    return ToolOutputInvalid(tool.name, errors, text, details={"errors": errors})


def _not_json(error: NotCanonical) -> SchemaMismatch:
    # A message that begins with a path quotes keys of the output.
    text = str(error)
    return _fault("not_json", "a number or its nesting is not JSON" if text.startswith("$") else text)


def _fault(kind: str, message: str) -> SchemaMismatch:
    return SchemaMismatch([{"loc": [], "type": kind, "msg": message}])


def _json_or_none(value: Any) -> bytes | None:
    try:
        return canonical_json(value)
    except NotCanonical:
        return None
