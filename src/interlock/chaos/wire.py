"""Faults of the wire as values: what goes wrong between a client and a real server, with which requests, and when.

The words are those of a suite's faults wherever the wire can do the same; `calls`, `probability` and the window mean
the same too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from interlock.chaos.framing import FramingName
from interlock.config.quantities import Bytes, Count, Name, Word
from interlock.core.errors import ConfigError

__all__ = [
    "ANSWER_KINDS",
    "MODEL_WIRE_KINDS",
    "READ_AS_HTTP",
    "ArmedWireFault",
    "PlacedFault",
    "Server",
    "WireFault",
    "WireKind",
    "model_path",
    "unfit",
]

Glob = Annotated[str, Field(min_length=1, max_length=256)]
Probability = Annotated[float, Field(gt=0.0, le=1.0)]
LongSeconds = Annotated[float, Field(ge=0.0, le=86_400.0)]


class WireKind(StrEnum):
    """What goes wrong."""

    LATENCY = "latency"
    BANDWIDTH = "bandwidth"
    DRIP = "drip"
    TIMEOUT = "timeout"
    BLACK_HOLE = "black_hole"
    HALF_OPEN = "half_open"
    CONNECT_REFUSED = "connect_refused"
    RESET = "reset"
    RESET_MID_BODY = "reset_mid_body"
    MALFORMED_BODY = "malformed_body"
    HTTP = "http"
    ANSWER_LOST = "answer_lost"
    MODEL_TRUNCATED = "model_truncated"
    MODEL_EMPTY = "model_empty"
    MODEL_MALFORMED_ARGUMENTS = "model_malformed_arguments"
    MODEL_REPEATS = "model_repeats"
    MODEL_UNKNOWN_TOOL = "model_unknown_tool"
    MODEL_SLOW = "model_slow"
    MODEL_RATE_LIMITED = "model_rate_limited"


MODEL_WIRE_KINDS = frozenset(kind for kind in WireKind if kind.startswith("model_"))
"""Kinds that concern the turns of a model, and no other request."""

ANSWER_KINDS = frozenset(
    {
        WireKind.BANDWIDTH,
        WireKind.DRIP,
        WireKind.HALF_OPEN,
        WireKind.RESET_MID_BODY,
        WireKind.MALFORMED_BODY,
        WireKind.ANSWER_LOST,
    }
)
"""Kinds that let the request pass and spoil its answer."""

MODEL_PATHS = ("/chat/completions", "/responses", "/messages")
READ_AS_HTTP: frozenset[FramingName] = frozenset({"http", "model"})

# Keys that mean nothing without these kinds.
_ONLY: Mapping[str, frozenset[WireKind]] = {
    "status": frozenset({WireKind.HTTP, WireKind.ANSWER_LOST}),
    "retry_after_s": frozenset({WireKind.HTTP, WireKind.MODEL_RATE_LIMITED}),
    "bytes_per_s": frozenset({WireKind.BANDWIDTH}),
    "after_bytes": frozenset({WireKind.RESET_MID_BODY, WireKind.MALFORMED_BODY, WireKind.HALF_OPEN}),
    "chunk_bytes": frozenset({WireKind.DRIP}),
    "delay_s": frozenset({WireKind.LATENCY, WireKind.DRIP, WireKind.TIMEOUT, WireKind.BLACK_HOLE, WireKind.MODEL_SLOW}),
}


@dataclass(frozen=True, slots=True)
class WireFault:
    """One fault, and which requests meet it; left out, every request does.

    Attributes:
        kind: What goes wrong.
        what: Glob of requests: `POST /tickets*` over HTTP, the statement's first word (`INSERT`) over PostgreSQL.
        connections: Numbers (from 1) of connections; empty is all.
        calls: Numbers (from 1) of the requests that match, over all connections; empty is all. Of a fault of the
            model, only its turns count.
        probability: Of each; drawn from the seed.
        from_s, until_s: Window, in seconds since the proxy was started or armed.
        delay_s: Of `latency` (1) and between the pieces of `drip` (0.05); after so long `timeout` and `black_hole`
            hang up (never, when left out); `model_slow` takes so much longer (30), a stream from event to event.
        status: Of `http` (503); of `answer_lost`: this status instead of a reset. retry_after_s: the header with it.
        after_bytes: So much of the answer passes; half of it, when left out (of `half_open`: nothing).
        chunk_bytes: Size of the pieces of `drip` (1). bytes_per_s: of `bandwidth` (1024), in each direction.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    kind: WireKind
    what: Glob = "*"
    connections: tuple[Count, ...] = ()
    calls: tuple[Count, ...] = ()
    probability: Probability = 1.0
    from_s: LongSeconds = 0.0
    until_s: LongSeconds | None = None
    delay_s: LongSeconds | None = None
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    retry_after_s: LongSeconds | None = None
    after_bytes: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    chunk_bytes: Bytes = 1
    bytes_per_s: Bytes = 1024

    def __post_init__(self) -> None:
        for name, kinds in _ONLY.items():
            default = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != default and self.kind not in kinds:
                fitting = ", ".join(sorted(kinds))
                raise ConfigError(f"{self.kind}: {name} means nothing here: it belongs to {fitting}")
        if self.until_s is not None and self.until_s <= self.from_s:
            raise ConfigError(f"{self.kind}: until_s must be later than from_s")
        counted = self.calls or self.connections or self.probability < 1.0 or self.what != "*"
        if self.kind is WireKind.CONNECT_REFUSED and counted:
            raise ConfigError(
                "connect_refused: a connection that is refused is not seen, and cannot be counted: "
                "give it a window (from_s, until_s), or use reset"
            )

    @property
    def label(self) -> str:
        """The kind, and the status where it has one."""
        status = 503 if self.kind is WireKind.HTTP and self.status is None else self.status
        return self.kind.value if status is None else f"{self.kind.value}_{status}"

    def as_json(self) -> dict[str, Any]:
        """Return what is not a default."""
        fields = type(self).__dataclass_fields__
        return {name: getattr(self, name) for name in fields if getattr(self, name) != fields[name].default}


@dataclass(frozen=True, slots=True)
class PlacedFault(WireFault):
    """A fault of the wire in a suite.

    Attributes:
        server: Which of the suite's servers it stands in front of; the only one, when left out.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    server: Name | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A server that a suite's agents use, and that a fault proxy is placed before.

    Attributes:
        to: `HOST:PORT`, `unix:PATH` or `https://HOST` of the server. speaks: `http`, `postgres`, `model` (HTTP, where a
            model answers: OpenAI's or Anthropic's form), or `tcp` for anything.
        env: Environment variable in which agents find where to connect. url: its value, `{address}` being the
            proxy's; `http://{address}` where the server speaks HTTP.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    to: Word
    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
    speaks: FramingName = "tcp"
    url: Word | None = None

    def value(self, address: str) -> str:
        """Return what the environment variable is set to."""
        pattern = self.url or ("http://{address}" if self.speaks in READ_AS_HTTP else "{address}")
        return pattern.replace("{address}", address)


def unfit(fault: WireFault, speaks: FramingName) -> str | None:
    """Return why a server that speaks so cannot have this fault, or None."""
    if fault.kind in MODEL_WIRE_KINDS and speaks != "model":
        return f"{fault.kind}: only a model says such things: say that the server speaks model (--speaks model)"
    if speaks not in READ_AS_HTTP and (fault.kind is WireKind.HTTP or fault.status is not None):
        return f"{fault.label}: only HTTP has a status: say that the server speaks http (--speaks http)"
    if speaks == "tcp" and fault.what != "*":
        return f"{fault.kind}: what = {fault.what!r}: bytes have no name: say --speaks http or postgres"
    return None


def model_path(what: str) -> str | None:
    """Return where a request (`POST /v1/messages`) asks a model for its next turn, or None."""
    method, _, path = what.partition(" ")
    return next((end for end in MODEL_PATHS if method == "POST" and path.endswith(end)), None)


class ArmedWireFault:
    """A fault of one proxy: which requests it has met. The same seed and order of requests meet the same faults.

    Args:
        fault: What it does. number: its place among the faults. seed: of chance.
    """

    def __init__(self, fault: WireFault, number: int, seed: int) -> None:
        self.fault = fault
        self._number = number
        self._seed = seed
        self._met = 0

    def strikes(self, connection: int, what: str, elapsed_s: float) -> bool:
        """Whether the next request, on this connection at this second, is struck."""
        fault = self.fault
        if fault.kind is WireKind.CONNECT_REFUSED or not _matches(fault.what, what):
            return False
        if fault.kind in MODEL_WIRE_KINDS and model_path(what) is None:
            return False
        if fault.connections and connection not in fault.connections:
            return False
        self._met += 1
        if fault.calls and self._met not in fault.calls:
            return False
        if elapsed_s < fault.from_s or (fault.until_s is not None and elapsed_s >= fault.until_s):
            return False
        if fault.probability >= 1.0:
            return True
        drawn = hashlib.sha256(f"{self._seed}:{self._number}:{self._met}".encode()).digest()
        return int.from_bytes(drawn[:6], "big") / (1 << 48) < fault.probability


def _matches(glob: str, what: str) -> bool:
    if glob == "*":
        return True
    pattern = re.escape(glob).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(pattern, what, re.DOTALL | re.IGNORECASE) is not None
