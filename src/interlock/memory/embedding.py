"""Vectors of meaning, for those who bring a model that makes them; none comes with this package.

Words find facts by their letters, vectors by what is meant. Both lists are joined by their ranks, so that neither
kind of score has to be compared with the other.
"""

from __future__ import annotations

import array
import math
import sys
from collections.abc import Sequence
from typing import Protocol

from interlock.memory.store import Hit

__all__ = ["Embedder", "by_meaning", "pack_vector", "similarity"]

# Of reciprocal rank fusion (Cormack, Clarke, Büttcher 2009).
_RRF = 60


class Embedder(Protocol):
    """Makes vectors of texts.

    Attributes:
        dims: Numbers of a vector. All facts of a store need the same embedder; those with another length are left
            to their words.
    """

    dims: int

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text. Runs in a worker thread; may be slow, and may raise."""
        ...


def pack_vector(vector: Sequence[float], dims: int) -> bytes:
    """Return a vector as stores keep it: unit length, float32, little endian.

    Raises:
        ValueError: It has not `dims` finite numbers, or no direction.
    """
    length = math.sqrt(math.fsum(x * x for x in vector))
    if len(vector) != dims or not 0 < length < math.inf:
        raise ValueError(f"an embedding must have {dims} finite numbers, not all zero")
    packed = array.array("f", (x / length for x in vector))
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def similarity(one: bytes, other: bytes) -> float:
    """Return the cosine of two packed vectors of equal length; -1.0 where they cannot be compared."""
    if len(one) != len(other) or len(one) % 4:
        return -1.0
    mine, theirs = array.array("f", one), array.array("f", other)
    if sys.byteorder == "big":
        mine.byteswap()
        theirs.byteswap()
    return sum(map(float.__mul__, mine, theirs))


def by_meaning(hits: Sequence[Hit], asked: bytes) -> list[Hit]:
    """Return the hits by words and by meaning together: pinned first, then by the sum of their reciprocal ranks."""
    by_words = [hit.fact.fact_id for hit in hits if hit.score != 0.0]
    near = [(similarity(hit.fact.vector, asked), hit.fact.fact_id) for hit in hits if hit.fact.vector is not None]
    by_vector = [fact_id for cosine, fact_id in sorted(near, key=lambda pair: -pair[0]) if cosine > 0.0]
    scores: dict[str, float] = {}
    for ranked in (by_words, by_vector):
        for place, fact_id in enumerate(ranked, 1):
            scores[fact_id] = scores.get(fact_id, 0.0) + 1.0 / (_RRF + place)
    joined = [Hit(hit.fact, scores[hit.fact.fact_id]) for hit in hits if hit.fact.fact_id in scores]
    return sorted(joined, key=lambda hit: (not hit.fact.pinned, -hit.score))
