"""How many tokens a text may cost, from above, without any model's vocabulary.

Counted for the worse: four letters of a Latin word, one digit, one sign, or one byte of any other script is a
token. English prose has about half as many in the vocabularies of today. Whoever wants the exact number brings
a counter of his model's.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["TokenCounter", "count_tokens"]

TokenCounter = Callable[[str], int]
"""Returns how many tokens a text has."""

_LATIN = re.compile(r"[A-Za-z]+")
_SPACES = re.compile(r"[ \t]+")


def count_tokens(text: str) -> int:
    """Return a number of tokens that `text` hardly exceeds in any common vocabulary."""
    words = _LATIN.findall(text)
    rest = _SPACES.sub("", _LATIN.sub("", text))
    return sum((len(word) + 3) // 4 for word in words) + len(rest.encode("utf-8", "surrogatepass"))
