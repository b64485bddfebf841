"""What kind of failure an error text tells of; the first rule that matches wins."""

from __future__ import annotations

import re

from interlock.forensics.traces import ErrorKind

__all__ = ["error_kind", "failure"]

# Only statuses that stand as statuses: "total price is 503" is none.
_STATUS = r"(?:status(?: code)?:? |http[ /]|code |error:? |^){}\b"
_WORDS: tuple[tuple[ErrorKind, str], ...] = (
    (
        "bad_arguments",
        r"validation errors?\b|invalid_type|invalid arguments|-32602|unexpected keyword|missing \d+ req|typeerror:",
    ),
    ("rate_limit", r"rate.?limit|too many requests|" + _STATUS.format("429")),
    (
        "server_or_network",
        r"service unavailable|bad gateway|gateway time-?out|internal server error"
        r"|connection (?:issue|reset|refused|error|aborted)|" + _STATUS.format("50[0234]"),
    ),
    ("timeout", r"timed? ?out"),
    ("auth", r"unauthori[sz]ed|forbidden|permission denied|" + _STATUS.format("40[13]")),
    ("not_found", r"not found|does not exist|doesn't exist|no such file|" + _STATUS.format("404")),
)
_RULES = tuple((kind, re.compile(words, re.IGNORECASE)) for kind, words in _WORDS)
_LOOKED_AT = 2_000


def error_kind(text: str) -> ErrorKind:
    """Return the kind of failure that an error text tells of; `business_or_other` when it says nothing we know."""
    head = text[:_LOOKED_AT]
    return next((kind for kind, pattern in _RULES if pattern.search(head)), "business_or_other")


def failure(text: str, *, flagged: bool = False) -> ErrorKind | None:
    """Return what went wrong by an answer's text, or None; the same whatever format the answer was recorded in.

    Args:
        text: The answer.
        flagged: Whether the record itself marks it as a failure.
    """
    return error_kind(text) if flagged or text.startswith(("Error:", "Error ")) else None
