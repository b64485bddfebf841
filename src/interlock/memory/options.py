"""How long facts live, how much of them a prompt may get, and what becomes of those that are not believed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from interlock.core.errors import ConfigError

__all__ = ["MemoryOptions", "Tainted", "Unverified"]


class Tainted(StrEnum):
    """What becomes of a fact that is written after the run has read something untrusted.

    LABEL: it is remembered with low trust. QUARANTINE: beside that, no agent reads it until a person releases it.
    """

    LABEL = "label"
    QUARANTINE = "quarantine"


class Unverified(StrEnum):
    """What becomes of a fact whose `verify_by` has passed and that nobody has confirmed.

    WITHHOLD: it is not recalled, and the answer says so. LABEL: it is recalled, marked as unverified.
    """

    WITHHOLD = "withhold"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """How memory is kept and read.

    Attributes:
        default_ttl_s: Life of a fact or artifact for which none is asked. max_ttl_s: the longest there is.
        max_tokens: Most that one recall may add to a prompt, framing included.
        max_fact_bytes, max_artifact_bytes: Of one text (UTF-8), and of one artifact's JSON.
        tainted, unverified: See there.
        growth_factor: A prompt that has grown to this many times its run's first is reported; None never.
    """

    default_ttl_s: float = 2_592_000.0
    max_ttl_s: float = 31_536_000.0
    max_tokens: int = 1_000
    max_fact_bytes: int = 16_384
    max_artifact_bytes: int = 1_000_000
    tainted: Tainted | str = Tainted.LABEL
    unverified: Unverified | str = Unverified.WITHHOLD
    growth_factor: float | None = 4.0

    def __post_init__(self) -> None:
        if not 0 < self.default_ttl_s <= self.max_ttl_s < math.inf:
            raise ConfigError("memory.default_ttl_s must be more than 0, and at most memory.max_ttl_s")
        if min(self.max_tokens, self.max_fact_bytes, self.max_artifact_bytes) < 1:
            raise ConfigError("memory.max_tokens, max_fact_bytes and max_artifact_bytes must be at least 1")
        if self.growth_factor is not None and not self.growth_factor > 1:
            raise ConfigError("memory.growth_factor must be more than 1, or null")
        for name, value, words in (("tainted", self.tainted, Tainted), ("unverified", self.unverified, Unverified)):
            if str(value) not in list(words):
                raise ConfigError(f"memory.{name} must be one of {', '.join(words)}")
