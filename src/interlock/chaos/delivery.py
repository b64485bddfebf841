"""How a task's request reaches its gates: once, or as its faults say; and who says yes or no meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from interlock.chaos.faults import Kind
from interlock.chaos.scene import Scene
from interlock.chaos.suite import Task, faults_of
from interlock.config.gate import Interlock
from interlock.config.trial import standing_in
from interlock.core.results import RunResult
from interlock.policy.approval import ApprovalState

__all__ = ["Agent", "deliver", "opens_itself"]

Agent = Callable[..., Any]

TENANT = "chaos"
LOOKS_EVERY_S = 1.0


def opens_itself(agent: Agent) -> bool:
    """Whether an agent opens its run itself, as some frameworks' entrances do: its first parameter is called `gate`.

    It is given the gate, the input and the words of `gate.run` that identify the request; it returns the `RunResult`.
    """
    try:
        return next(iter(inspect.signature(agent).parameters), "") == "gate"
    except (TypeError, ValueError):
        return False


async def deliver(agent: Agent, gate: Interlock, tried: Sequence[Interlock], scene: Scene, task: Task) -> RunResult:
    """Send the request, and once more where its faults say so: to the last of the gates, if there are two.

    Args:
        gate: The one that the agent was made with. tried: those on trial, each of which stands in for it.
    """
    # A remote that knows keys must not take one repetition for another.
    options: dict[str, Any] = {
        "tenant_id": TENANT,
        "request_id": f"{task.name}-{scene.seed}",
        "agent_name": "chaos",
    }
    options |= {"allow": task.tools} if task.tools is not None else {}
    options |= {"scopes": task.scopes} if task.scopes else {}
    opens = opens_itself(agent)

    async def send(to: Interlock, delay_s: float) -> RunResult | None:
        await scene.clock.sleep(delay_s)
        with standing_in(gate, to):
            if opens:
                answer: RunResult = await agent(gate, task.input, **options)
                return answer
            return await to.run(agent, task.input, **options)

    deliveries = [send(tried[0], 0.0)]
    for fault in faults_of(task):
        if fault.kind in {Kind.DUPLICATE_DELIVERY, Kind.TWO_WORKERS}:
            scene.note_request_fault(fault, "request")
            to = tried[-1] if fault.kind is Kind.TWO_WORKERS else tried[0]
            deliveries.append(send(to, fault.delay_s or 0.0))
        elif fault.kind is Kind.CALLER_GONE:
            scene.note_request_fault(fault, "request")
            deliveries[0] = _gone(deliveries[0], 1.0 if fault.delay_s is None else fault.delay_s, scene)
    async with _person(task, tried[0], scene):
        answers = await asyncio.gather(*deliveries)
        # A caller that has gone is told nothing; whoever asks again is.
        answer = next((each for each in answers if each is not None), None) or await send(tried[0], 0.0)
    assert answer is not None
    return answer


async def _gone(delivery: Any, after_s: float, scene: Scene) -> RunResult | None:
    """Cancel a delivery as a web server does whose client has hung up."""
    sent = asyncio.ensure_future(delivery)
    patience = asyncio.ensure_future(scene.clock.sleep(after_s))
    await asyncio.wait({sent, patience}, return_when=asyncio.FIRST_COMPLETED)
    patience.cancel()
    sent.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        answer: RunResult | None = await sent
        return answer
    return None


@contextlib.asynccontextmanager
async def _person(task: Task, gate: Interlock, scene: Scene) -> AsyncIterator[None]:
    """Let somebody look at the approvals that are asked for, and say what the task says."""
    if task.person is None:
        yield
        return
    looking = asyncio.ensure_future(_decide(gate, scene, approved=task.person == "approves"))
    try:
        yield
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


async def _decide(gate: Interlock, scene: Scene, *, approved: bool) -> None:
    approvals = gate.house().store.approvals
    while True:
        await scene.clock.sleep(LOOKS_EVERY_S)
        for row in await approvals.list(tenant_id=None, state=ApprovalState.PENDING, limit=100):
            await approvals.decide(row.id, approved, "interlock chaos", "a trial")
