"""What one cell says: what happened in the world, why the run ended, what the model was told, what is on record."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.conversation import Heard
from conformance.report import Ended, Played
from conformance.scenario import Scenario

__all__ = ["Cell", "Facts", "judge"]

INVITES = re.compile(
    r"try again|tr(y|ies) (it )?once more|retry|please repeat|repeat the call|call it again", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the servers saw of a session.

    Attributes:
        effects: Things that happened, by `kind:subject`. requests: to the world, by tool.
        hasty: Requests that came before Retry-After was over.
        heard: What the model was told, each with whether a sub-agent was. turns: requests to the model.
    """

    effects: Mapping[str, int]
    requests: Mapping[str, int]
    hasty: int
    heard: tuple[tuple[bool, Heard], ...]
    turns: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the matrix.

    Attributes:
        effects, wanted: Counted at the remote; wanted: what should be there.
        lost: Effects too many, or too few. duplicated: of these, the same thing once more.
        reason: Why each delivery ended. told: what the model was told.
        faults: What else is not as it must be; empty for a bare cell.
        cannot: Why the framework has no way to hold this, or None.
    """

    scenario: str
    framework: str
    version: str
    guarded: bool
    effects: int
    wanted: int
    lost: int
    duplicated: int
    reason: str
    told: tuple[str, ...]
    faults: tuple[str, ...] = ()
    cannot: str | None = None

    @property
    def held(self) -> bool:
        """Whether it is as it must be."""
        return not self.lost and not self.faults and self.cannot is None

    @property
    def text(self) -> str:
        """The cell as the table has it."""
        if self.cannot is not None:
            return f"cannot be held: {self.cannot}"
        if self.lost:
            return f"lost {self.lost} effect{'' if self.lost == 1 else 's'}"
        return f"NOT held: {self.faults[0]}" if self.faults else "held"

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints of it."""
        return {
            "scenario": self.scenario,
            "framework": self.framework,
            "version": self.version,
            "guarded": self.guarded,
            "effects": self.effects,
            "reason": self.reason,
            "told_model": list(self.told),
            "wanted": self.wanted,
            "cell": self.text,
            "faults": list(self.faults),
        }


def judge(
    scenario: Scenario,
    played: Played,
    facts: Facts,
    reference: tuple[Played, Facts] | None = None,
) -> Cell:
    """Return the cell of what was played.

    Args:
        reference: The hand-written loop's, of the same side; None for the loop itself, and for bare cells.
    """
    counted = facts.requests if scenario.counts == "requests" else facts.effects
    lost, duplicated = _damage(counted, scenario.wanted)
    for ended, delivery in zip(played.deliveries, scenario.deliveries, strict=False):
        if delivery.leaves is not None:
            lost = max(lost, *(_damage(e.effects, delivery.leaves)[0] for e in ended))
    faults: list[str] = []
    if played.failed is not None:
        faults.append(f"could not be played: {_last_line(played.failed)}")
    elif not facts.turns:
        faults.append("it never asked the model")
    faults += [f"{e.error}" for some in played.deliveries for e in some if e.reason in {"died", "stuck"} and e.error]
    if played.guarded:
        faults += _ends(scenario, played) + _told(scenario, facts)
        if facts.hasty:
            faults.append(f"{facts.hasty} requests before Retry-After was over")
        if reference is not None:
            faults += _differs(scenario, played, facts, *reference)
    return Cell(
        scenario.name,
        played.column,
        played.version,
        played.guarded,
        sum(counted.values()) if scenario.counts == "effects" else sum(counted.get(t, 0) for t in scenario.wanted),
        sum(scenario.wanted.values()),
        lost,
        duplicated,
        _reasons(played),
        tuple(heard.text for _, heard in facts.heard),
        tuple(faults),
        played.cannot,
    )


def _damage(counted: Mapping[str, int], wanted: Mapping[str, int]) -> tuple[int, int]:
    """Return how many effects are too many or too few, and how many are the same thing once more."""
    lost = sum(abs(counted.get(what, 0) - wanted.get(what, 0)) for what in counted.keys() | wanted.keys())
    return lost, sum(max(0, times - max(1, wanted.get(what, 0))) for what, times in counted.items())


def _reasons(played: Played) -> str:
    return ", ".join("+".join(dict.fromkeys(_reason(e) for e in some)) for some in played.deliveries)


def _reason(ended: Ended) -> str:
    return f"raised {ended.error.partition(':')[0]}" if ended.reason == "raised" and ended.error else ended.reason


def _ends(scenario: Scenario, played: Played) -> list[str]:
    found = []
    for number, (some, delivery) in enumerate(zip(played.deliveries, scenario.deliveries, strict=False), 1):
        for ended in some:
            if ended.reason == "raised":
                found.append(f"raised {_last_line(ended.error or '')}")
            elif ended.reason not in {*delivery.reasons, "died", "stuck"}:
                found.append(f"delivery {number} ended as {ended.reason} ({ended.message}), not {delivery.reasons[0]}")
    if len(played.deliveries) != len(scenario.deliveries):
        found.append(f"{len(played.deliveries)} of {len(scenario.deliveries)} deliveries were played")
    return found


def _told(scenario: Scenario, facts: Facts) -> list[str]:
    if scenario.correctable:
        return []
    return [f"the model was invited to repeat: {h.text[:120]!r}" for _, h in facts.heard if INVITES.search(h.text)]


def _differs(scenario: Scenario, played: Played, facts: Facts, their_play: Played, their_facts: Facts) -> list[str]:
    """Return where a framework's run and the hand-written loop's are not the same."""
    found = []
    mine, theirs = _rows(scenario, played), _rows(scenario, their_play)
    if mine != theirs:
        missing, more = _without(theirs, mine), _without(mine, theirs)
        found.append(f"record differs: missing {_short(missing)}, more {_short(more)}")
    for ended, other in zip(_all(played), _all(their_play), strict=False):
        if (ended.steps, ended.cost_usd) != (other.steps, other.cost_usd) and not scenario.nested:
            found.append(
                f"{ended.steps} steps, ${ended.cost_usd:.4f}; by hand {other.steps} steps, ${other.cost_usd:.4f}"
            )
        if scenario.nested and round(ended.cost_usd - other.cost_usd, 6):
            found.append(f"${ended.cost_usd:.4f}; by hand ${other.cost_usd:.4f}")
    if not scenario.correctable:
        heard = [(nested, h.call_id, h.text) for nested, h in facts.heard]
        for nested, other_heard in their_facts.heard:
            said = other_heard.text
            if _is_value(said):
                continue
            if not any(n == nested and i == other_heard.call_id and said in text for n, i, text in heard):
                found.append(f"the model was not told {said[:100]!r}")
    return found


def _all(played: Played) -> list[Ended]:
    return [ended for some in played.deliveries for ended in some]


def _rows(scenario: Scenario, played: Played) -> list[tuple[str, ...]]:
    if not scenario.correctable:
        return list(played.record)
    # What cannot be read is hashed as each framework read it; the refusal itself must be the same. Sorted anew: the
    # record was, by digests that are each store's own.
    return sorted(row if row[3] == "success" else (*row[:2], "", *row[3:]) for row in played.record)


def _without(rows: Sequence[tuple[str, ...]], others: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    left = list(others)
    found = []
    for row in rows:
        if row in left:
            left.remove(row)
        else:
            found.append(row)
    return found


def _short(rows: Sequence[tuple[str, ...]]) -> str:
    return (
        "; ".join(
            f"{tool} {digest[:6]} {status} {reason}".replace("  ", " ").strip()
            for _, tool, digest, status, reason in rows
        )
        or "-"
    )


def _is_value(text: str) -> bool:
    """Whether a text is a tool's answer: frameworks write these each in its own way."""
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:300] if text.strip() else "nothing"
