"""Who said it first: whether a value stands in a text, allowing for how texts are written.

Untrusted text is searched loosely (case, spaces, invisible characters and punctuation do not hide a value),
trusted text strictly (`evil.example` is not vouched for by a mention of `not-evil.example`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["is_said", "is_written", "leaves", "normal", "particulars", "squeezed"]

# As deep as JSON goes here; deeper, or in a circle, nothing is read.
MAX_DEPTH = 254
# Shorter ones stand by chance in a text without its gaps.
SQUEEZED_LEAST = 8

_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_NO_LETTER = re.compile(r"[\W_]+")
# What is particular enough to be recognised inside of a longer text: an address, a site, a number, a file, a code.
_PARTICULAR = re.compile(
    r"""(?:https?://|www\.)[^\s<>'",)]+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+|\b\w[\w-]*(?:\.\w[\w-]*)+\b"""
    r"""|\b(?=\w*\d)\w{6,}\b|\b(?:[A-Z]{2}\d{2}(?: ?\w{4}){2,7}(?: ?\w{1,4})?)\b"""
)
_PATH = re.compile(r"[/?#:]")
_ENDINGS = " .,;:!?"
_JOINTS_OF_NUMBERS = frozenset(":-/.,")
_JOINTS_OF_NAMES = frozenset("-_@/+%&=~")


def leaves(value: Any, above: tuple[int, ...] = ()) -> Iterator[str]:
    """Yield the texts and numbers of a JSON value, keys included; what is no JSON says nothing, nor does a circle."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        yield str(value)
    elif isinstance(value, float):
        yield f"{value:.0f}" if value.is_integer() else str(value)
    elif id(value) in above or len(above) > MAX_DEPTH:
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(key, (*above, id(value)))
            yield from leaves(item, (*above, id(value)))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item, (*above, id(value)))
    elif hasattr(value, "model_dump"):
        yield from leaves(value.model_dump(mode="json"), (*above, id(value)))


def normal(text: str) -> str:
    """Return a text as it is compared: case folded, without invisible characters, its gaps one space each."""
    return " ".join(_INVISIBLE.sub("", text).casefold().split())


def squeezed(text: str) -> str:
    """Return the letters and digits of a normal text: `GB29 NWBK`, `gb29-nwbk` and `gb29nwbk` are one."""
    return _NO_LETTER.sub("", text)


def particulars(text: str) -> list[str]:
    """Return what a longer text names: addresses, sites, numbers, files; as they are compared, each once."""
    found: dict[str, None] = {}
    for match in _PARTICULAR.findall(_INVISIBLE.sub("", text)):
        word = normal(match).strip(_ENDINGS)
        bare = word.removeprefix("https://").removeprefix("http://")
        if bare != word or bare.startswith("www."):
            # What is added to an address may be what it carries out: the site alone tells whose it is.
            found[_PATH.split(bare, maxsplit=1)[0].removeprefix("www.")] = None
        found[bare] = None
    return [word for word in found if len(word) > 3]


def is_said(word: str, text: str, letters: str) -> bool:
    """Whether a value stands in an untrusted text (`normal`; `letters` is the same text `squeezed`)."""
    if _stands(word, text, _goes_on):
        return True
    bare = squeezed(word)
    return len(bare) >= SQUEEZED_LEAST and bare in letters


def is_written(word: str, text: str) -> bool:
    """Whether a value stands in a trusted text (`normal`) exactly so, as a name of its own."""
    return _stands(word, text, _goes_on_as_a_name)


def _stands(word: str, text: str, goes_on: Callable[[str, str, bool], bool]) -> bool:
    at, is_number = text.find(word), word.isdigit()
    while at >= 0:
        end = at + len(word)
        before, after = text[max(0, at - 2) : at], text[end : end + 2]
        if not goes_on(before[-1:], before[:-1], is_number) and not goes_on(after[:1], after[1:], is_number):
            return True
        at = text.find(word, at + 1)
    return False


def _goes_on(beside: str, beyond: str, is_number: bool) -> bool:
    """Whether a word goes on in the character beside it; a number inside of a date or another number does."""
    return beside.isalnum() or (is_number and beside in _JOINTS_OF_NUMBERS and beyond.isdigit())


def _goes_on_as_a_name(beside: str, beyond: str, is_number: bool) -> bool:
    """Likewise, where parts of a name are joined: by a stop only if something follows, which may end a sentence."""
    return (
        _goes_on(beside, beyond, is_number)
        or (beside != "" and beside in _JOINTS_OF_NAMES)
        or (beside == "." and beyond.isalnum())
    )
