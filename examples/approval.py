"""A refund that a person approves, from another place and later.

The tool needs an approval. Nobody decides while the run waits, so the run parks. Then somebody approves, the
same request is asked again, and goes on: one refund. In real life the second part is a command in another
terminal: `interlock approvals approve ID --by ana`.

    python examples/approval.py
"""

import tempfile
from pathlib import Path

import interlock

refunds: dict[str, str] = {}


def refund_agent(run: interlock.Run, order_id: str) -> str:
    """Stand in for an agent that has decided to refund."""
    return str(run.call("refund.create", {"order_id": order_id, "amount": 40}))


def main(directory: Path) -> None:
    """Ask, park, approve, go on."""
    gate = interlock.Interlock(
        {"approvals": {"wait_s": 0}, "tools": {"allow": ["refund.create"]}}, store=f"sqlite:///{directory}/interlock.db"
    )

    @gate.tool("refund.create", effect="write", approval="required", identity=("order_id",))
    def refund(order_id: str, amount: int, *, idempotency_key: str) -> str:
        refunds[idempotency_key] = order_id  # the remote deduplicates on the key
        return f"refunded {amount} for {order_id}"

    result = gate.run_sync(refund_agent, "order-17", request_id="req_1")
    print(result.reason, "| parked:", result.parked, "| refunds:", len(refunds))

    for waiting in gate.approvals():
        print("waiting:", waiting.rendered)
        gate.approve(waiting.id, by="ana", reason="checked with the customer")

    result = gate.run_sync(refund_agent, "order-17", request_id="req_1")
    print(result.reason, "|", result.output, "| refunds:", len(refunds))
    gate.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
