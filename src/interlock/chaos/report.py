"""What a drill found, as a value: its JSON, its verdict, and the three lines that lead on from it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interlock.chaos.score import Side

__all__ = ["DUPLICATES_EXPECTED", "Doubt", "DrillReport", "ScenarioReport"]

DUPLICATES_EXPECTED = 34  # what the article's incident had: a drill that shows no incident has failed


@dataclass(frozen=True, slots=True)
class ScenarioReport:
    """One scenario, both sides; `reported` is the article's column, row by row."""

    name: str
    title: str
    bare: Side
    guarded: Side
    reported: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Doubt:
    """An open doubt: the claim's key in hexadecimal, what it was about, and the effect that the backend has, if any."""

    key: str
    subject: str
    effect: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class DrillReport:
    """Everything the drill prints.

    Attributes:
        seed, time_scale: As asked for. elapsed_s: Real seconds. store: Where the guarded runs are recorded.
        doubt: One open doubt, or None. worst_run: Id of the guarded run that cost most before it was stopped.
    """

    seed: int
    time_scale: float
    scenarios: tuple[ScenarioReport, ...]
    store: str
    elapsed_s: float
    doubt: Doubt | None = None
    worst_run: str | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """Why the drill failed; empty if it did not."""
        found = [
            f"{s.name}: {getattr(s.guarded, what)} {what} under Interlock"
            for s in self.scenarios
            for what in ("duplicates", "lost")
            if getattr(s.guarded, what) > 0
        ]
        shown = self.scenarios[0].bare.duplicates
        if shown < DUPLICATES_EXPECTED:
            found.append(
                f"{self.scenarios[0].name}: {shown} duplicates on the bare side, fewer than the "
                f"{DUPLICATES_EXPECTED} of the incident it shows"
            )
        return tuple(found)

    @property
    def exit_code(self) -> int:
        """0, or 1 if the drill failed."""
        return 1 if self.failures else 0

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "seed": self.seed,
            "time_scale": self.time_scale,
            "scenarios": [
                {"name": s.name, "bare": _counts(s.bare), "guarded": _counts(s.guarded)} for s in self.scenarios
            ],
        }

    @property
    def settle_command(self) -> str | None:
        """How to close the doubt, after a look at the backend."""
        if self.doubt is None:
            return None
        effect = self.doubt.effect
        if effect is None:
            verdict: tuple[str, ...] = ("--not-performed",)
        else:
            answer = {"id": effect["id"], "status": "created", "url": effect.get("url", "")}
            verdict = ("--done", json.dumps(answer))
        reason = "looked at the backend"
        return _command("settle", self.doubt.key, *verdict, "--by", "YOU", "--reason", reason, "--store", self.store)

    @property
    def show_command(self) -> str | None:
        """How to see the worst run."""
        return None if self.worst_run is None else _command("show", self.worst_run, "--store", self.store)


def _counts(side: Side) -> dict[str, Any]:
    return {
        "asked": side.asked,
        "effects": side.effects,
        "duplicates": side.duplicates,
        "lost": side.lost,
        "reasons": dict(side.reasons),
    }


def _command(*words: str) -> str:
    return shlex.join(("interlock", *words))
