"""What tests of adapters share: a gate that permits everything, and a remote that counts effects."""

import interlock

MEMORY = "sqlite:///:memory:"


def make_gate(**tools):
    """A gate on the embedded store; `agent`, `mode` and `approvals` are sections, the rest are keys of `tools`."""
    config = {name: tools.pop(name) for name in ("agent", "mode", "approvals", "prices") if name in tools}
    config.setdefault("agent", {"budgets": {"max_usd": None}})
    tools = {"allow": ["*"], "retries": {"max_attempts": 3, "backoff_ms": [0]}, **tools}
    return interlock.Interlock({**config, "tools": tools, "logging": {"level": "error"}}, store=MEMORY)


class Remote:
    """Counts effects; under a key that it knows it does nothing again. The first `lost` answers get lost."""

    def __init__(self, lost=0):
        self.effects = []
        self.sends = 0
        self.lost = lost
        self.keys = {}

    def act(self, subject, key=None):
        self.sends += 1
        if key is None or key not in self.keys:
            self.effects.append(subject)
            if key is not None:
                self.keys[key] = len(self.effects)
        if self.lost:
            self.lost -= 1
            raise TimeoutError("the answer got lost")
        return {"n": self.keys.get(key, len(self.effects))}
