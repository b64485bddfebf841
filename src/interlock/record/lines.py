"""One log line a call and one a run, as JSON or as text; made and redacted in the background.

A successful call is `info`, a refusal or a stop is `warning`. A line holds the keyed hash of a call's
arguments; the arguments themselves only where `logging.include` names `args`, and then redacted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from interlock.core.clock import SYSTEM, Clock
from interlock.record.background import GATHER_S
from interlock.record.redact import DEFAULT_KEYS, Redactor
from interlock.record.trace import NO_KEY, Entry, Trace, step_of, unpack
from interlock.record.writer import LineWriter, json_line

__all__ = ["LineSink", "LoggingOptions"]

LEVELS = ("debug", "info", "warning", "error")
ALWAYS = ("timestamp", "level", "event")
ANSWERED = frozenset({"success", "replayed", "repeated"})
ARGS = "args"
MAX_TEXT = 2_000
_MILLISECONDS = tuple(f"{n:03d}Z" for n in range(1_000))

# A line has the moment it was written and `elapsed_s`; the trace of a run is its calls' lines, unless asked for.
_RENAMED = frozenset({"timestamp", "duration_s"})
_NOT_IN_LINES = _RENAMED | {"trace"}

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class LoggingOptions:
    """`logging`: what log lines say, and where they go. The stored record is always whole.

    Attributes:
        level: `info` shows successful calls too, `warning` refusals and stops only.
        structured: JSON lines; False writes the same as text.
        include: Fields of a line; None is all but content. `args` adds redacted arguments.
        redact: Names whose values are never written (see `Redactor`).
        to: `stderr`, or the path of a file.
    """

    level: Level = "warning"
    structured: bool = True
    include: tuple[str, ...] | None = None
    redact: tuple[str, ...] = DEFAULT_KEYS
    to: str = "stderr"


class LineSink:
    """Writes log lines as `options` say.

    Attributes:
        says_info, says_warning: Whether answered and refused calls are written; callers ask before they call.
        wants_args: Whether `call` should be given the arguments.
    """

    def __init__(self, options: LoggingOptions, clock: Clock = SYSTEM, *, gather_s: float = GATHER_S) -> None:
        self._clock = clock
        self._least = LEVELS.index(options.level)
        self.says_info = self._least <= LEVELS.index("info")
        self.says_warning = self._least <= LEVELS.index("warning")
        self.wants_args = options.include is not None and ARGS in options.include
        self._redactor = Redactor(options.redact)
        self._include = None if options.include is None else _fields(options.include)
        self._finish = json_line if options.structured else _as_text
        self._stamps = _Stamps()
        self._writer = LineWriter(options.to, self._encode, gather_s=gather_s)

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._writer.lost

    def call(self, trace: Trace, entry: Entry, args_json: bytes | None = None) -> None:
        """Write one call: `info` if it was answered, else `warning`. The level is the caller's to ask."""
        self._writer.put((trace, entry, args_json))

    def run(self, record: Mapping[str, Any]) -> None:
        """Write the end of a run from its record: `info` if it succeeded, else `warning`."""
        succeeded = record.get("stop_reason") == "success"
        if not (self.says_info if succeeded else self.says_warning):
            return
        left_out = _NOT_IN_LINES if self._include is None or "trace" not in self._include else _RENAMED
        fields = {name: value for name, value in record.items() if name not in left_out}
        fields["elapsed_s"] = record.get("duration_s")
        self.event("info" if succeeded else "warning", "run", fields)

    def event(self, level: Level, event: str, fields: Mapping[str, Any]) -> None:
        """Write something else that happened (a switch set, a circuit opened); `fields` are redacted."""
        if LEVELS.index(level) >= self._least:
            self._writer.put((level, event, self._clock.wall(), fields))

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all lines queued so far are written; return whether that took less than `timeout_s`."""
        return self._writer.flush(timeout_s)

    def close(self) -> None:
        """Write what is queued and release the file."""
        self._writer.close()

    def _encode(self, item: tuple[Any, ...]) -> bytes:
        if len(item) == 3:
            line = self._call_line(*item)
        else:
            level, event, at, fields = item
            line = {"timestamp": self._stamps.text(at), "level": level, "event": event, **self._redactor.value(fields)}
        if self._include is not None:
            include = self._include
            line = {name: value for name, value in line.items() if name in include}
        return self._finish(line)

    def _call_line(self, trace: Trace, entry: Entry, args_json: bytes | None) -> dict[str, Any]:
        tool, status, effect, more = entry[0]
        seq, turn, attempts, at, duration_s, digest, key = unpack(entry[1])
        line: dict[str, Any] = {
            "timestamp": self._stamps.text(at),
            "level": "info" if status in ANSWERED else "warning",
            "event": "call",
            "run_id": trace.run_id,
            "tenant_id": trace.tenant_id,
            "step": step_of(seq, turn),
            "tool": tool,
            "args_hash": digest.hex(),
            "elapsed_s": round(duration_s, 6),
            "status": status,
            "seq": seq,
            "effect": effect,
            "attempts": attempts,
        }
        if key != NO_KEY:
            line["key"] = key.hex()
        if more is not None:
            line |= more.facts()
        if args_json is not None:
            line[ARGS] = self._redactor.value(orjson.loads(args_json))
        return line


class _Stamps:
    """ISO 8601 in UTC with milliseconds; the calendar is worked out once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = ""

    def text(self, at: float) -> str:
        second = int(at)
        if second != self._second:
            self._second = second
            self._prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
        return self._prefix + _MILLISECONDS[int((at - second) * 1000)]


def _fields(include: tuple[str, ...]) -> frozenset[str]:
    # A call's `reason` is what `stop_reason` is to a run: who asks for one wants both.
    return frozenset((*ALWAYS, *include, *(("reason",) if "stop_reason" in include else ())))


def _as_text(line: dict[str, Any]) -> bytes:
    words = [str(line.pop(name)) for name in ALWAYS]
    words += [f"{name}={_word(value)}" for name, value in line.items() if value is not None]
    return (" ".join(words) + "\n").encode("utf-8", "backslashreplace")


def _word(value: Any) -> str:
    """Return `value` as one word: quoted where it is not plain, so that no value can begin a line of its own."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if isinstance(value, str) and not (text.isascii() and text.isprintable() and text and not set(text) & set(' "=')):
        text = orjson.dumps(text[:MAX_TEXT]).decode()
    return text
