"""Secrets do not leave the process: values under telling names are hidden, and so are texts that look like keys.

Names match in any case and at any depth, `-` equals `_`, camelCase equals snake_case, and a name counts as
suffix too: `token` hides `access_token` and `X-Auth-Token`, not `max_tokens`. Texts are searched only for
patterns whose literal part they contain, so that ordinary text costs a few substring searches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["DEFAULT_KEYS", "HIDDEN", "Redactor"]

HIDDEN = "[redacted]"
MAX_DEPTH = 100
MAX_PARTS = 50_000
MEMO = 4_096

DEFAULT_KEYS = (
    "authorization",
    "cookie",
    "token",
    "api_key",
    "password",
    "passwd",
    "secret",
    "secret_key",
    "access_key",
    "private_key",
    "credentials",
)

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# (literals of which one must be in the text, pattern, what takes its place). Quantifiers are bounded or stand on
# disjoint classes: a hostile text costs linear time.
_VALUES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("sk-",), r"\bsk-[A-Za-z0-9_-]{16,}", HIDDEN),
    (("sk_", "rk_", "pk_"), r"\b[srp]k_(?:live|test)_[A-Za-z0-9]{10,}", HIDDEN),
    (("eyJ",), r"\beyJ[A-Za-z0-9_-]{8,2048}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?", HIDDEN),
    (("gh", "github_pat_"), r"\b(?:gh[opusr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})", HIDDEN),
    (("glpat-",), r"\bglpat-[A-Za-z0-9_-]{16,}", HIDDEN),
    (("xox",), r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}", HIDDEN),
    (("AKIA", "ASIA"), r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", HIDDEN),
    (("AIza",), r"\bAIza[A-Za-z0-9_-]{30,}", HIDDEN),
    (("://",), r"(?<=://)[^\s/@:]{1,256}:[^\s/@]{1,256}(?=@)", HIDDEN),
    (("earer ", "EARER "), r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}", HIDDEN),
    (
        ("PRIVATE KEY-----",),
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:[^-]*-----END [A-Z ]{0,40}PRIVATE KEY-----|[^-]*)",
        HIDDEN,
    ),
)


class Redactor:
    """Hides secrets in JSON-like values and in texts.

    Args:
        keys: Names whose values are hidden, as written in `logging.redact`.
    """

    __slots__ = ("_assigned", "_hides", "_keys", "_literals", "_squeezed")

    def __init__(self, keys: Iterable[str] = DEFAULT_KEYS) -> None:
        self._keys = tuple(dict.fromkeys(key for name in keys if (key := _normal(name))))
        self._squeezed = frozenset(key.replace("_", "") for key in self._keys)
        self._hides: dict[str, bool] = {}
        self._literals = tuple(dict.fromkeys(key.split("_", 1)[0] for key in self._keys))
        self._assigned = _assignments(self._keys)

    def hides(self, name: str) -> bool:
        """Whether a value under this name is hidden."""
        known = self._hides.get(name)
        if known is None:
            normal = _normal(name)
            known = normal.replace("_", "") in self._squeezed or any(
                normal == key or normal.endswith("_" + key) for key in self._keys
            )
            if len(self._hides) < MEMO:  # names come from tools and models: the memo is bounded
                self._hides[name] = known
        return known

    def text(self, text: str) -> str:
        """Return `text` without what looks like a secret: known key formats, and `name=value` of hidden names."""
        for literals, pattern, instead in _VALUES:
            for literal in literals:
                if literal in text:
                    text = re.sub(pattern, instead, text)  # compiled when first needed, and kept by `re`
                    break
        if self._assigned is not None and ("=" in text or ":" in text):
            lower = text.lower()
            if any(literal in lower for literal in self._literals):
                text = self._assigned.sub(_hide_value, text)
        return text

    def value(self, value: Any) -> Any:
        """Return a copy of `value` in which secrets are hidden; what is not JSON becomes the name of its type."""
        return self._value(value, 0, [MAX_PARTS])

    def _value(self, value: Any, depth: int, left: list[int]) -> Any:
        if isinstance(value, str):
            text = self.text(value)
            return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
        if value is None or isinstance(value, float):
            return value
        if isinstance(value, int):
            return value if -(2**63) <= value < 2**64 else str(value)
        left[0] -= 1
        if depth > MAX_DEPTH or left[0] < 0:  # cycles end here too
            return "[too large]"
        if isinstance(value, Mapping):
            return {
                self.text(str(name)): HIDDEN
                if self.hides(str(name)) and item is not None
                else self._value(item, depth + 1, left)
                for name, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(item, depth + 1, left) for item in value]
        return f"[{type(value).__name__}]"


def _normal(name: str) -> str:
    return _CAMEL.sub("_", name.strip()).replace("-", "_").replace(" ", "_").lower()


def _assignments(keys: tuple[str, ...]) -> re.Pattern[str] | None:
    """Return a pattern of `name=value`, `name: value` and `"name": "value"` for hidden names inside a text."""
    if not keys:
        return None
    names = "|".join(re.escape(key).replace("_", "[-_ ]?") for key in sorted(keys, key=len, reverse=True))
    start = r"(?:(?<![A-Za-z0-9])|(?-i:(?<=[a-z0-9])(?=[A-Z])))"
    quoted = r"(?P<quote>\\?[\"'])(?:(?!(?P=quote))[^\n]){0,4096}"
    plain = (
        r"(?:(?:bearer|basic|token|digest) )?[^\s\"',;&}\]]{1,4096}(?:; ?[\w.-]{1,256}=[^\s\"',;&}\]]{0,4096}){0,64}"
    )
    return re.compile(rf"(?i){start}(?P<name>(?:{names})\\?[\"']?\s{{0,3}}[=:]\s{{0,3}})(?:{quoted}|{plain})")


def _hide_value(found: re.Match[str]) -> str:
    return f"{found['name']}{found['quote'] or ''}{HIDDEN}"
