"""What a framework brings to the matrix: how it runs an agent with its own defaults, and how under a gate.

A column is one file in `columns/`, named as the column with `_` for `-`, that holds one constant `COLUMN`.
It builds agents as the framework's users do, from the `Job` alone; it knows no scenario by name, counts
nothing and catches nothing: the harness does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from interlock import Interlock, RunResult

__all__ = ["Column", "Job", "Nested", "Tool", "Wire"]


class Wire(StrEnum):
    """Which dialect of model the framework's client speaks with."""

    OPENAI_CHAT = "openai-chat"
    OPENAI_RESPONSES = "openai-responses"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool, as a plain typed function with a docstring, which acts on the world over HTTP.

    Attributes:
        name: Letters and `_`, as the model calls it. description: for the model.
        fn: `async def` or `def` (then `sync`), arguments by keyword. It raises what an HTTP client raises.
        parameters: JSON Schema of the arguments as the model sees them (never with `idempotency_key`).
        effect: What it does; the configuration of a guarded run says so too, under `tools.effects`. None: nobody knows.
        keyed: `fn` has a keyword-only parameter `idempotency_key: str`, to be filled by the adapter and hidden
            from the model. Only in guarded runs; a bare tool never has it.
        timeout_s: To be set as the framework's own timeout of this tool, bare and guarded, where it has one.
    """

    name: str
    description: str
    fn: Callable[..., Any]
    parameters: Mapping[str, Any]
    effect: Literal["read", "write"] | None
    sync: bool = False
    keyed: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Nested:
    """A sub-agent that the agent uses as a tool of this name; its tool takes one text, under any name.

    Under a gate its model turns and tool calls belong to the parent's run, or to a child of it.
    """

    name: str
    description: str
    system: str
    tools: tuple[Tool, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """One agent to build and run.

    Attributes:
        system, prompt: What the agent is told.
        tools: All of them; which are permitted is the gate's business.
        openai_url: Base URL for OpenAI clients, `…/v1`. anthropic_url: for Anthropic clients, without `/v1`.
        model: Name to ask for; the configuration has its price, with and without `openai:` or `anthropic:` before it.
        api_key: Any text; the server does not look.
        stream: Run the agent with the framework's streaming, and consume it to the end.
        nested: A sub-agent to build and give to the agent as one more tool.
        own_retries: Switch on the framework's own retrying of tools, with its defaults, where it has such a thing.
        max_turns: Turns that the framework's own cap must allow; None: its default.
        options: For a guarded run: `tenant_id`, `request_id` and `agent_name`, to be passed as they are to
            `gate.run`, `gate.open_run` or the adapter's own entrance.
    """

    system: str
    prompt: str
    tools: tuple[Tool, ...]
    openai_url: str
    anthropic_url: str
    model: str
    api_key: str = "not-a-key"
    stream: bool = False
    nested: Nested | None = None
    own_retries: bool = False
    max_turns: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def tool(self, name: str) -> Tool:
        """Return the tool of this name."""
        return next(tool for tool in self.tools if tool.name == name)


@dataclass(frozen=True, slots=True)
class Column:
    """One framework.

    Attributes:
        name: Of the column, e.g. `pydantic-ai`.
        distribution: The package whose version is printed, e.g. `pydantic-ai-slim`.
        requires: Requirements of a virtual environment of its own, for where the package is not installed; pins.
        wire: What its client speaks.
        bare: Runs the agent with the framework's defaults; returns what it says in the end, raises what it raises.
        guarded: Runs it under the gate and returns the run's result. Called again with the same options it must
            end as a second delivery of the request does, and after a killed process it must resume.
        cannot: Scenario name to the reason why this framework has no way to hold it; shown in the cell.
        cannot_bare: Scenario name to the reason why there is no bare run to compare with.
    """

    name: str
    distribution: str
    requires: tuple[str, ...]
    wire: Wire
    bare: Callable[[Job], Awaitable[Any]]
    guarded: Callable[[Job, Interlock], Awaitable[RunResult]]
    cannot: Mapping[str, str] = field(default_factory=dict)
    cannot_bare: Mapping[str, str] = field(default_factory=dict)
