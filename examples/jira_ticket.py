"""A lost answer, retried, and one ticket: the article's Jira case, bare and guarded.

The backend creates the ticket and then loses the answer (a timeout). A helpful agent asks again. Bare, that
makes two tickets. Under Interlock both attempts carry one idempotency key, and the backend keeps one.

    python examples/jira_ticket.py
"""

from typing import Any, Literal

from pydantic import BaseModel

import interlock

REQUEST = "Users can't log in. Create a Jira ticket and reply with the URL."


class Jira:
    """A ticketing backend that remembers keys, and loses its first answer."""

    def __init__(self) -> None:
        self.tickets: list[str] = []
        self.by_key: dict[str, int] = {}
        self.answers_to_lose = 1

    def create(self, title: str, key: str | None = None) -> dict[str, str]:
        """Create a ticket, or return the one that was created under this key."""
        number = self.by_key.get(key) if key else None
        if number is None:
            self.tickets.append(title)
            number = len(self.tickets)
            if key:
                self.by_key[key] = number
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise TimeoutError("504: the ticket was created, and the answer got lost")
        return {"id": f"JIRA-{number}", "status": "created", "url": f"https://jira.example/JIRA-{number}"}


def model(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Stand in for a model: propose the ticket, propose it again after an error, then answer with the URL."""
    last = messages[-1]
    if last["role"] == "tool" and "url" in last["content"]:
        return {"text": last["content"]["url"]}
    return {"tool": "ticket.create", "args": {"title": "Login outage"}}


def bare() -> None:
    """Run the loop as most of us wrote it first."""
    jira = Jira()
    messages: list[dict[str, Any]] = [{"role": "user", "content": REQUEST}]
    while "text" not in (reply := model(messages)):
        try:
            messages.append({"role": "tool", "content": jira.create(reply["args"]["title"])})
        except TimeoutError as error:
            messages.append({"role": "tool", "content": {"error": str(error)}})
    print("bare:      ", reply["text"], "- tickets in Jira:", len(jira.tickets))


class Ticket(BaseModel):
    """What the backend must answer; anything else is withheld from the model."""

    id: str
    status: Literal["created", "pending"]
    url: str


def guarded() -> None:
    """Run the same agent under Interlock."""
    jira = Jira()
    gate = interlock.Interlock({"tools": {"retries": {"backoff_ms": [10]}}}, store="sqlite:///:memory:")

    @gate.tool("ticket.create", effect="write", output=Ticket)
    def create_ticket(title: str, *, idempotency_key: str) -> dict[str, str]:
        return jira.create(title, idempotency_key)

    def triage(run: interlock.Run, task: str) -> str:
        messages: list[dict[str, Any]] = [{"role": "user", "content": task}]
        while "text" not in (reply := run.model(model, messages)):
            seen = run.observe(reply["tool"], reply["args"])
            messages.append({"role": "tool", "content": seen.value.model_dump() if seen.ok else seen.for_model})
        return str(reply["text"])

    result = gate.run_sync(triage, REQUEST, request_id="req_7842")
    print("interlock: ", result.output, "- tickets in Jira:", len(jira.tickets))

    # The client lost the answer, too, and sends its request once more.
    again = gate.run_sync(triage, REQUEST, request_id="req_7842")
    print("once more: ", again.output, "- tickets in Jira:", len(jira.tickets), "- replayed:", again.replayed)
    gate.close()


if __name__ == "__main__":
    bare()
    guarded()
