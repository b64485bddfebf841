"""Readers of recorded runs, one file a format: `detects(record)` and `read(lines, dataset)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from interlock.forensics.formats import (
    agentdojo,
    anthropic_messages,
    interlock_records,
    langfuse,
    langsmith,
    letta,
    livemcp,
    mcp_log,
    mini_swe,
    moatless,
    normalized,
    openai_chat,
    openai_responses,
    otlp,
    tau2,
)
from interlock.forensics.traces import Broken, RecordedRun

__all__ = ["FORMATS", "Format", "format_of"]


@dataclass(frozen=True, slots=True)
class Format:
    """One way in which runs are written down.

    Attributes:
        name: As reports call it.
        detects: Whether a decoded record is of this format.
        read: Given the lines of a file and the name of its data set, yields runs and what is broken.
    """

    name: str
    detects: Callable[[Any], bool]
    read: Callable[[Iterable[bytes], str], Iterator[RecordedRun | Broken]]


# The most particular first: chat messages are inside several of them.
FORMATS = (
    Format("normalized", normalized.detects, normalized.read),
    Format("interlock", interlock_records.detects, interlock_records.read),
    Format("interlock_lines", interlock_records.detects_lines, interlock_records.read_lines),
    Format("agentdojo", agentdojo.detects, agentdojo.read),
    Format("tau2", tau2.detects, tau2.read),
    Format("livemcp", livemcp.detects, livemcp.read),
    Format("letta", letta.detects, letta.read),
    Format("moatless", moatless.detects, moatless.read),
    Format("mini_swe", mini_swe.detects, mini_swe.read),
    Format("mcp_log", mcp_log.detects, mcp_log.read),
    Format("langsmith", langsmith.detects, langsmith.read),
    Format("langfuse", langfuse.detects, langfuse.read),
    Format("otlp", otlp.detects, otlp.read),
    Format("openai_responses", openai_responses.detects, openai_responses.read),
    Format("anthropic_messages", anthropic_messages.detects, anthropic_messages.read),
    Format("openai_chat", openai_chat.detects, openai_chat.read),
)


def format_of(record: Any) -> Format | None:
    """Return the format that a decoded record is written in, or None."""
    if not isinstance(record, dict | list):
        return None
    return next((known for known in FORMATS if known.detects(record)), None)
