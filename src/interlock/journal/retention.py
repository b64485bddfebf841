"""What may be forgotten, and when: content first, later the keys; never a doubt, never a run that is not over.

Two ages. *Content* is what a run was about: task, output, record, model turns, results, trace rows. When it is
dropped a tombstone stays: state, reason and counters of the run, and every claim with its digest and state. So
an old request is still answered ("done, result not kept"), and an old write is not sent again. The *keys* go
last, together with their request, and never before the horizon at which remotes forget ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from interlock.core.errors import ConfigError

__all__ = ["Ages", "Fate", "Purged", "Retention", "Standing", "fate"]

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Ages:
    """How old what is kept may become, in seconds since its request was last worked on; None keeps it.

    Attributes:
        content_s: Of content; None keeps everything. keys_s: of requests and claims.
        horizon_s: How long a request may be delivered again, or a remote remember a key: no key goes before.

    Raises:
        ConfigError: Keys would go before the horizon, or before their content.
    """

    content_s: float | None
    keys_s: float | None
    horizon_s: float

    def __post_init__(self) -> None:
        for name, age_s in (("content_days", self.content_s), ("keys_days", self.keys_s)):
            if age_s is not None and not 0 <= age_s < math.inf:
                raise ConfigError(f"retention.{name}: is a number of days, at least 0; null keeps for ever")
        if self.keys_s is None:
            return
        if self.keys_s < self.horizon_s:
            raise ConfigError(
                f"retention.keys_days: {_days(self.keys_s)} is shorter than tools.dedupe_window_s "
                f"({_days(self.horizon_s)} d): a request delivered again would send its writes again; "
                f"write at least {_days(self.horizon_s)}"
            )
        if self.content_s is None or self.content_s > self.keys_s:
            kept = "null" if self.content_s is None else _days(self.content_s)
            raise ConfigError(
                f"retention.keys_days: {_days(self.keys_s)} is shorter than retention.content_days ({kept}): content "
                "goes with its keys at the latest; write a longer keys_days (null keeps for ever)"
            )


class Fate(StrEnum):
    """What becomes of a request."""

    YOUNG = "young"
    UNFINISHED = "unfinished"
    DOUBT = "doubt"
    DROP_CONTENT = "drop_content"
    REMOVE = "remove"
    TOMBSTONE = "tombstone"


@dataclass(frozen=True, slots=True)
class Standing:
    """A request with all its runs and claims, as it stands.

    Attributes:
        finished: Every run of it has ended.
        doubt: A claim of it is open: intent, or in doubt.
        last_s: When it was last worked on (Unix seconds): the latest time on any of its rows.
        content: There is content left to drop.
    """

    finished: bool
    doubt: bool
    last_s: float
    content: bool


def fate(standing: Standing, ages: Ages, now_s: float) -> Fate:
    """Return what becomes of a request; a time that lies ahead is young."""
    age_s = now_s - standing.last_s
    if ages.content_s is None or age_s < ages.content_s:
        return Fate.YOUNG
    if not standing.finished:
        return Fate.UNFINISHED
    if standing.doubt:
        return Fate.DOUBT
    if ages.keys_s is not None and age_s >= ages.keys_s:
        return Fate.REMOVE
    return Fate.DROP_CONTENT if standing.content else Fate.TOMBSTONE


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge did (or, as a dry run, would do), in requests.

    Attributes:
        content: Whose content was dropped; their tombstones stay. requests: removed with their claims.
        claims: Claims removed with them.
        doubts: Old enough, and kept because a claim is open. unfinished: kept because a run is not over.
        slices: Transactions that it took.
    """

    content: int = 0
    requests: int = 0
    claims: int = 0
    doubts: int = 0
    unfinished: int = 0
    slices: int = 0


class Retention(Protocol):
    """Forgets what is old enough, beside everybody who writes."""

    async def purge(self, ages: Ages, *, tenant_id: str | None = None, dry_run: bool = False) -> Purged:
        """Drop content and remove keys by age, in slices: short transactions between which others write.

        What stands is looked at again inside each transaction. May be interrupted at any point and run again.

        Raises:
            StoreUnavailable: The store cannot be read or written; what was done so far stays done.
        """
        ...


def _days(seconds: float) -> str:
    return f"{seconds / DAY_S:g}"
