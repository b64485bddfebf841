"""The `state` guard: what may be kept of a run is validated output, and nothing else.

It stands outside the guards that answer from records, since what they answer was validated when it was made.
`run.artifacts.put` keeps only what is an answer of this run or its children; the tool it came from is known by that,
and not by what the caller says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from interlock.core.calls import Answer, Call, Effect, Proceed, ToolSpec
from interlock.core.canonical import NotCanonical
from interlock.core.errors import InvalidArguments, ToolDenied
from interlock.gateway.remembering import Counting
from interlock.gateway.scope import RunScope
from interlock.gateway.verbs import Verbs
from interlock.memory.drafts import draft_artifact, named
from interlock.memory.fact import Origin
from interlock.memory.options import MemoryOptions
from interlock.memory.scope import Scope
from interlock.memory.store import MemoryStore

__all__ = ["Keeping", "StateGuard"]


class StateGuard:
    """Guard: takes note of every validated output of a run."""

    def __call__(self, tool: ToolSpec, proceed: Proceed[RunScope]) -> Proceed[RunScope]:
        """Fold the guard around `proceed`; any tool's output may be kept."""

        async def state(call: Call[RunScope]) -> Answer:
            answer = await proceed(call)
            # With a note the output has failed its checks, and was let through all the same.
            if answer.json is not None and answer.note is None:
                call.run.validated.note(tool, answer.json)
            return answer

        return state


class Keeping:
    """The verbs of artifacts.

    Args:
        store: Where artifacts are. verbs: how a run uses a verb.
    """

    def __init__(self, store: MemoryStore, options: MemoryOptions, verbs: Verbs, counting: Counting) -> None:
        self._store = store
        self._options = options
        self._verbs = verbs
        self._counting = counting

    async def put(
        self, run: RunScope, name: str, value: Any, scope: Scope, *, ttl_s: float | None, subject: str
    ) -> None:
        """Keep a validated output of this run under a name, in place of what was there."""
        try:
            found = run.validated.find(value)
        except NotCanonical as error:
            raise InvalidArguments(f"memory: an artifact must be JSON: {error}") from None
        if found is None:
            self._counting.memory_rejected("not_validated")
            raise ToolDenied(
                f"artifact {named('name', name)!r}: its value is not a validated output of this run, as it came; keep "
                "what a tool returned, or make a tool of what computes it",
                for_model="Only what a tool returned can be kept. Nothing was kept.",
                details={"policy": "state"},
            )
        tool, data = found
        origin = Origin(run.run_id, run.agent, tool, run.lineage.sources)
        words: Mapping[str, Any] = {"ttl_s": ttl_s, "subject": subject, "trust": run.lineage.trust, "origin": origin}
        new = draft_artifact(name, data, self._options, now_s=run.clock.wall(), **words)

        async def work(_: Call[RunScope]) -> Answer:
            self._store.put_artifact_soon(scope, new)
            return Answer(None, b"null")

        args = {"scope": scope.parts, "name": new.name, "hash": hashlib.blake2b(data, digest_size=16).hexdigest()}
        await self._verbs.do(run, "artifacts.put", Effect.WRITE, args, work)

    async def get(self, run: RunScope, name: str, scope: Scope) -> Any:
        """Return a kept output, or None; its label becomes the run's."""

        async def work(_: Call[RunScope]) -> Answer:
            found = await self._store.get_artifact(scope, named("name", name), run.clock.wall())
            kept = None if found is None else [int(found.info.trust), orjson.loads(found.data)]
            return Answer(None, orjson.dumps(kept))

        answer = await self._verbs.do(run, "artifacts.get", Effect.READ, {"scope": scope.parts, "name": name}, work)
        self._counting.memory_read("artifact")
        kept = orjson.loads(answer.json or b"null")
        if kept is None:
            return None
        trust, value = kept
        run.lineage.read(f"artifact:{name}", trust, value)
        return value
