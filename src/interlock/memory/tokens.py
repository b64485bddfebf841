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

# Four letters or the rest of a word.
_LETTERS = re.compile(r"[A-Za-z]{1,4}")
_NO_SIGNS = re.compile(r"[A-Za-z \t]+")


def count_tokens(text: str) -> int:
    """Return a number of tokens that `text` hardly exceeds in any common vocabulary."""
    signs = _NO_SIGNS.sub("", text)
    return len(_LETTERS.findall(text)) + len(signs.encode("utf-8", "surrogatepass"))
