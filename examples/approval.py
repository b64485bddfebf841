"""A refund that a person approves, from another process and later.

The tool needs an approval. Nobody decides while the run waits, so the run parks. Then somebody types
`interlock approvals approve ID --by ana`, the same request is asked again, and goes on: one refund.

    python examples/approval.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import interlock

refunds: dict[str, str] = {}


def refund_agent(run: interlock.Run, order_id: str) -> str:
    """Stand in for an agent that has decided to refund."""
    return str(run.call("refund.create", {"order_id": order_id, "amount": 40}))


def person(*words: str) -> None:
    """Type a command, as a person would in another terminal."""
    print("$ interlock", *words)
    subprocess.run([Path(sys.executable).with_name("interlock"), *words], check=True, stdout=subprocess.DEVNULL)


def main(directory: str) -> None:
    """Ask, park, approve, go on."""
    store = f"sqlite:///{directory}/interlock.db"
    gate = interlock.Interlock({"approvals": {"wait_s": 0}, "tools": {"allow": ["refund.create"]}}, store=store)

    @gate.tool("refund.create", effect="write", approval="required", identity=["order_id"])
    def refund(order_id: str, amount: int, *, idempotency_key: str) -> str:
        refunds[idempotency_key] = order_id  # the remote deduplicates on the key
        return f"refunded {amount} for {order_id}"

    result = gate.run_sync(refund_agent, "order-17", request_id="req_1")
    print(result.reason, "| parked:", result.parked, "| refunds:", len(refunds))

    person("approvals", "list", "--store", store)
    person("approvals", "approve", result.details["approval_id"], "--by", "ana", "--store", store)

    result = gate.run_sync(refund_agent, "order-17", request_id="req_1")
    print(result.reason, "|", result.output, "| refunds:", len(refunds))
    gate.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(place)
