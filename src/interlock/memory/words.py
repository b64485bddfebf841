"""The words of a text, the same for what is written and for what is asked: runs of letters and digits, lower case."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["words_in"]

# Longer runs are no words of people: keys, hashes, encoded data.
MAX_WORD = 256

_WORD = re.compile(r"[^\W_]+")


def words_in(text: str) -> list[str]:
    """Return the words of `text` in order."""
    folded = unicodedata.normalize("NFC", text).lower()
    return [word for word in _WORD.findall(folded) if len(word) <= MAX_WORD]
