"""What a scenario is made of: a script for the model, weather for the world, deliveries, and what must come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conformance.conversation import Script
from conformance.world import Plan

__all__ = ["Delivery", "Given", "Scenario"]


@dataclass(frozen=True, slots=True)
class Given:
    """A tool that the agent is given; see `tools.make_tool`."""

    name: str
    keyed: bool = False
    sync: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of the request to a worker.

    Attributes:
        reasons: How a guarded run may end this delivery; one reason, unless the order of events is open.
        before: What a person does first: `approve`, `deny`, or `wait`.
        dies: Tool after whose first effect the worker is killed with SIGKILL.
        if_failed: Bare, only if the delivery before it raised: a queue delivers again what was not acknowledged.
        leaves: What may have happened by the end of this delivery; None: only the end counts.
    """

    reasons: tuple[str, ...] = ("success",)
    before: str | None = None
    dies: str | None = None
    if_failed: bool = False
    leaves: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the matrix.

    Attributes:
        name: Identifier. title: as the table has it.
        script: What the model does. nested: what a sub-agent's model does, where there is one.
        given: The agent's tools.
        wanted: What must have happened in the end, `kind:subject` to times; nothing else may. For a scenario
            about reads, tool name to requests, with `counts="requests"`.
        plans: What requests to a tool meet.
        config: Merged into the configuration that all share.
        lost_answer: A write whose answer is lost: some bare run must show a duplicate here.
        stream, own_retries: See `column.Job`.
        correctable: The model may correct what it sent: an invitation to do so is right.
    """

    name: str
    title: str
    script: Script
    wanted: Mapping[str, int]
    given: tuple[Given, ...] = (Given("ticket_create"), Given("row_append"), Given("search_read"))
    plans: Mapping[str, Plan] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    deliveries: tuple[Delivery, ...] = (Delivery(),)
    tenants: tuple[str, ...] = ("acme",)
    nested: Script | None = None
    counts: str = "effects"
    lost_answer: bool = False
    stream: bool = False
    own_retries: bool = False
    correctable: bool = False
