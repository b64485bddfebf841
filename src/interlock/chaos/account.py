"""What can be seen of one trial, as lines of text that are equal where the behaviour is equal.

How it was answered, every call with its attempts and faults and what the model and the developer were told of it,
what was asked of the model, what stands in the journal, who was asked, which guards acted. On virtual time nothing
of it differs from one run to the next.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import takewhile
from typing import Any

from interlock.chaos.hearing import Heard, Hearing
from interlock.chaos.plain_words import digits_of, facts, flat, number, plain_json, shown, usual
from interlock.chaos.scene import Injection, Request, Scene
from interlock.config.gate import Interlock
from interlock.config.opening import Store
from interlock.config.sections import Settings
from interlock.core.calls import ToolSpec
from interlock.core.results import RunResult
from interlock.journal.store import Claim, RunRow
from interlock.policy.approval import ApprovalRow

__all__ = ["account_of", "rules_of"]

MOST_ROWS = 10_000
# A text of more characters is written out once.
REPEATED = 48
# Runs are called by the order in which they are met; of keys and digests, some digits of a hash say the same.
_RUN = re.compile(r"\brun_[0-9a-f]{16,}\b")
_LONG_HEX = re.compile(r"\b(?:[a-z]+[0-9]?_)?(?:(?<=il1_)[a-z2-7]{20,}|(?=[0-9]*[a-f])[0-9a-f]{16,})\b")

# What stands elsewhere in the account, or says nothing.
_OF_RUN = {"record", "output", "task", "run_id", "tenant_id", "request_id", "request_time_ms", "payload_hash", "agent"}
_OF_RECORD = {"run_id", "tenant_id", "timestamp", "request_id", "root_run_id", "injected", "trace", "agent", "profile"}
_OF_ROW = {"seq", "tool", "args_hash", "attempts", "batch", "key", "reason", "effect", "ended_at"}
_OF_CLAIM = {"tenant_id", "request_id", "agent", "tool", "result", "args", "args_digest", "run_id", "sent_key"}
_OF_APPROVAL = {"id", "tenant_id", "tool", "effect_key", "requested_at"}
_OF_TOOL = {"name", "description", "is_async"}
_COUNTED_ELSEWHERE = re.compile(r"interlock_(runs|run_|tool_call|cost_usd|denials)")
# What is not written, because it is so as a rule.
_USUAL = {"attempts": 1, "fence": 1, "mode": "enforce", "state": "ended", "sends": 1, "occurrence": 1, "verified": True}
_USUAL |= dict.fromkeys(("barren", "used_s", "spent_usd", "spent_tokens", "trace_dropped"), 0)
_IDLE = dict.fromkeys(("opens", "in_flight", "waiting", "abandoned"), 0)


async def account_of(
    scene: Scene, hearing: Hearing, store: Store, gates: Sequence[Interlock], results: Iterable[RunResult]
) -> tuple[str, ...]:
    """Return the lines of a trial; to be asked for before its gates are closed."""
    results = list(results)
    rows = sorted(await store.runs(limit=MOST_ROWS), key=lambda row: (row.started_at, row.path, row.run_id))
    claims = {claim.key: claim for row in rows for claim in await store.claims_of(row.root_run_id)}
    approvals = await store.approvals.list(state=None, limit=MOST_ROWS)
    account = _Account(scene, results[0].run_id if results else "")
    for result in results:
        account.answered(result)
    for row in rows:
        account.run(row, next((each for each in results if each.run_id == row.run_id), None))
    for heard in hearing.calls:
        account.call(heard, {row.run_id: row for row in rows}.get(heard.run_id))
    account.rest()
    for claim in claims.values():
        account.claim(claim)
    for approval in reversed(approvals):
        account.approval(approval)
    account.counts(gates)
    return account.lines()


def rules_of(settings: Settings, tools: Iterable[ToolSpec]) -> tuple[str, ...]:
    """Return the configuration in force, and the tools as it sees them: a line each."""
    lines = [f"{path} = {value}" for path, value in flat("", settings)]
    for tool in sorted(tools, key=lambda tool: tool.name):
        said = {each.name: getattr(tool, each.name) for each in fields(tool) if each.name not in _OF_TOOL}
        lines.append(f"tool {tool.name}: {facts(said)}")
    return tuple(lines)


class _Account:
    def __init__(self, scene: Scene, run_id: str) -> None:
        self._scene = scene
        self._main = run_id
        self._lines: list[str] = []
        self._said: set[str] = set()
        self._read: dict[str, Any] = {}
        self._began_at = scene.clock.wall() - scene.clock.monotonic() + (scene.began_s or 0.0)
        self._attempts: dict[tuple[str, int], list[Request]] = {}
        for request in scene.requests:
            self._attempts.setdefault((request.run_id, request.seq), []).append(request)
        self._struck: dict[tuple[str, int, int], list[Injection]] = {}
        for each in scene.injections:
            self._struck.setdefault((each.run_id, each.seq, each.attempt), []).append(each)

    def lines(self) -> tuple[str, ...]:
        """Return the lines, with short names for what has long ones."""
        runs: dict[str, str] = {self._main: "run1"}

        def run(match: re.Match[str]) -> str:
            return runs.setdefault(match[0], f"run{len(runs) + 1}")

        named = (_RUN.sub(run, line) for line in self._lines)
        return tuple(_LONG_HEX.sub(lambda match: "#" + digits_of(match[0]), line) for line in named)

    def answered(self, result: RunResult) -> None:
        used = f"{result.steps} steps, {result.tool_calls} calls, {number(result.cost_usd)} USD, {result.tokens} tokens"
        replayed = ", from the record" if result.replayed else ""
        which = "" if result.run_id == self._main else f" of {result.run_id}"
        self._add(f"ended{which}: {result.reason}, {used}, {number(result.elapsed_s)} s{replayed}")
        if result.output is not None:
            self._add(f"  output: {self._text(plain_json(result.output))}")
        for name, value in sorted(result.details.items()):
            text = value if isinstance(value, str) else plain_json(value)
            self._add(f"  {name}: {self._text(text)}")

    def run(self, row: RunRow, result: RunResult | None) -> None:
        said = {each.name: getattr(row, each.name) for each in fields(row) if each.name not in _OF_RUN}
        said |= {"started_at": None, "ended_at": None if row.ended_at is None else row.ended_at - row.started_at}
        told: dict[str, Any] = {"root_run_id": row.run_id, "output_kept": row.output is not None}
        record = {name: value for name, value in (row.record or {}).items() if name not in _OF_RECORD}
        if result is not None:
            told |= {"reason": result.reason.value, "ended_at": result.elapsed_s}
            used: dict[str, Any] = {"steps": result.steps, "tool_calls": result.tool_calls, "tokens": result.tokens}
            used |= {"cost_usd": round(result.cost_usd, 6), "details": result.details, "parked": result.parked}
            used |= {"stop_reason": result.reason.value, "duration_s": round(result.elapsed_s, 3)}
            record = usual(record, used)
        injected = len((row.record or {}).get("injected", ()))
        which = "run" if row.run_id == self._main else row.run_id
        for where, more in (
            ("in the store", facts(usual(said, {**_USUAL, **told}))),
            ("on record", facts({**usual(record, _USUAL), "faults": injected})),
        ):
            self._add(f"{which} {where}: {more or 'as told'}")

    def call(self, heard: Heard, row: RunRow | None) -> None:
        came = dict(heard.facts)
        read = came.pop("has_read", None)
        if read != self._read.get(heard.run_id):
            self._read[heard.run_id] = came["has_read"] = read
        came = usual(came, {**_USUAL, "batch": came.get("turn")})
        tries = came.pop("evidence", None)
        if not came.get("effect"):  # else it is in the journal
            came["tries"] = self._tries(tries)
        when = f"{number(heard.began_s)} to {number(heard.ended_s)} s"
        name = f"{self._of(heard.run_id)}{heard.seq} {heard.tool} {self._text(heard.args)}"
        self._add(f"call {name} at {when}: {heard.outcome}, {facts(came)}{self._on_record(heard, row)}")
        for whom, text in (("model", heard.model), ("developer", heard.developer)):
            if text:
                self._add(f"  {whom}: {self._text(text)}")
        for request in self._attempts.pop((heard.run_id, heard.seq), ()):
            self._attempt(request)

    def _on_record(self, heard: Heard, row: RunRow | None) -> str:
        trace = () if row is None or row.record is None else row.record.get("trace", ())
        kept = next((each for each in trace if each.get("seq") == heard.seq), None)
        if kept is None:
            return "; not on record"
        took_ms = round((heard.ended_s - heard.began_s) * 1e3, 3)
        said = {"step": heard.facts.get("turn", 1) - 1, "status": heard.facts.get("ended_as", heard.outcome)}
        said = {**said, "duration_ms": kept["duration_ms"] if abs(kept["duration_ms"] - took_ms) < 0.01 else None}
        more = facts(usual({name: value for name, value in kept.items() if name not in _OF_ROW}, said))
        return f"; on record {more}" if more else ""

    def _tries(self, evidence: Iterable[Mapping[str, Any]] | None) -> str:
        """Return what is known of each attempt, in the journal's words."""
        tries: list[str] = []
        for each in evidence or ():
            said = usual(each, {"attempt": len(tries) + 1})
            when = f" at {number(said.pop('at') - self._began_at)}" if "at" in said else ""
            words = " ".join(str(said.pop(name)) for name in ("kind", "performed") if name in said)
            tries.append(f"{words}{when}" + (f" ({facts(said)})" if said else ""))
        return "; ".join(tries)

    def _attempt(self, request: Request) -> None:
        struck = self._struck.pop((request.run_id, request.seq, request.attempt), ())
        why = "".join(f", {each.fault}" for each in struck)
        came = "no answer" if request.output is None else f"answer #{digits_of(request.output.hex())}"
        sent = "" if request.executed else ", not executed"
        key = f", key {request.key}" if request.key else ""
        when = f"{number(request.at_s)} to {number(request.done_s)} s"
        self._add(f"  attempt {request.attempt} at {when}{why}: {came}{sent}{key}")

    def rest(self) -> None:
        """Write what belongs to no call: attempts nobody waited for, faults of the store and the model, prompts."""
        for (run_id, seq), requests in self._attempts.items():
            self._add(f"attempts of {self._of(run_id)}{seq} {requests[0].tool}, whose call was not answered")
            for request in requests:
                self._attempt(request)
        for each in (each for struck in self._struck.values() for each in struck):
            of = f" of {self._of(each.run_id)}{each.seq}" if each.run_id else ""
            self._add(f"fault {each.fault} at {each.where}{of}, {number(each.at_s)} s")
        before = ""
        for place, prompt in enumerate(self._scene.prompts, 1):
            self._add(f"prompt {place}: {self._text(_news(prompt, before))}")
            before = prompt

    def claim(self, claim: Claim) -> None:
        said: dict[str, Any] = {
            each.name: getattr(claim, each.name)
            for each in fields(claim)
            if each.compare and each.name not in _OF_CLAIM
        }
        first_s = claim.first_sent_at
        said |= {"key": claim.key.hex(), "first_sent_at": None, "last_sent_at": claim.last_sent_at - first_s}
        said |= {"settled_at": None if claim.settled_at is None else claim.settled_at - first_s}
        said |= {"result": None if claim.result is None else claim.result.decode(errors="replace")}
        said |= {"evidence": self._tries(claim.evidence)}
        said = usual(said, {**_USUAL, "result_kept": claim.result is not None, "settled_by": "tool", "seq": claim.seq})
        self._add(f"claim {claim.tool} of {self._of(claim.run_id)}{claim.seq}: {facts(said)}")

    def approval(self, row: ApprovalRow) -> None:
        said: dict[str, Any] = {
            each.name: getattr(row, each.name) for each in fields(row) if each.name not in _OF_APPROVAL
        }
        asked_s = row.requested_at
        said |= {"expires_at": row.expires_at - asked_s, "effect_key": row.effect_key.hex()}
        said |= {"decided_at": None if row.decided_at is None else row.decided_at - asked_s}
        self._add(f"approval of {row.tool}: {facts(said)}")

    def counts(self, gates: Sequence[Interlock]) -> None:
        """Write how often guards acted, how tools stand, what the gauges show, and how often chance was drawn."""
        for name, times in sorted(Counter(self._scene.acted).items()):
            self._add(f"guard {name} acted {times} times")
        for gate in gates:
            for status in gate.house().admission.status():
                said = facts(usual(status, {"tool": status["tool"], "breaker": "closed", **_IDLE}))
                if said:
                    self._add(f"{status['tool']} stands at: {said}")
            for sample in _samples(gate):
                self._add(sample)
        if self._scene.clock.draws:
            self._add(f"chance was drawn {len(self._scene.clock.draws)} times")

    def _add(self, line: str) -> None:
        self._lines.append(line)

    def _of(self, run_id: str) -> str:
        return "" if run_id == self._main else f"{run_id}/"

    def _text(self, text: str) -> str:
        """Return a text in one line, its beginning only where it was written out before."""
        again = len(text) > REPEATED and text in self._said
        self._said.add(text)
        return shown(text, REPEATED // 2 if again else None)


def _news(prompt: str, before: str) -> str:
    """Return what a prompt has that the one before it has not."""
    pairs = list(zip(prompt, before, strict=False))
    head = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    left = min(len(prompt), len(before)) - head
    backwards = zip(reversed(prompt), reversed(before), strict=False)
    tail = min(left, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], backwards)))
    if head + tail <= REPEATED // 2:
        return prompt
    return f"…{prompt[head : len(prompt) - tail]}… ({head} and {tail} characters as before)"


def _samples(gate: Interlock) -> Iterator[str]:
    for line in gate.metrics().splitlines():
        name, _, value = line.rpartition(" ")
        if not line.startswith("#") and not _COUNTED_ELSEWHERE.match(name) and float(value):
            yield f"{name} {number(float(value))}"
