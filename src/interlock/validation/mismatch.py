"""What did not fit, told without repeating it.

Rejected content is where an attack or a secret would travel, so nothing of it leaves here: no values, no
messages that quote them, and of a path only the names that the schema itself knows.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import core_schema

__all__ = ["SchemaMismatch", "explain", "from_pydantic", "known_words", "mask", "not_among", "suggest"]

MAX_ERRORS = 20
MAX_LOC = 16
MAX_TEXT = 200
# Listing the faults of a long array costs more than finding them; beyond this they are only counted.
MAX_COUNTED = 1000
MASK = "?"

# Messages of pydantic that quote what they refuse; all others speak only of the schema.
_QUOTING = {
    "assertion_error": "Assertion failed",
    "bytes_invalid_encoding": "Data is not validly encoded",
    "date_from_datetime_parsing": "Input should be a valid date or datetime",
    "date_parsing": "Input should be a valid date in the format YYYY-MM-DD",
    "datetime_from_date_parsing": "Input should be a valid datetime or date",
    "datetime_object_invalid": "Invalid datetime object",
    "datetime_parsing": "Input should be a valid datetime",
    "get_attribute_error": "Error extracting an attribute",
    "iteration_error": "Error iterating over the input",
    "json_invalid": "Invalid JSON",
    "mapping_type": "Input should be a valid mapping",
    "no_such_attribute": "The object has no such attribute",
    "time_delta_parsing": "Input should be a valid timedelta",
    "time_parsing": "Input should be in a valid time format",
    "timezone_offset": "Another timezone offset is required",
    "union_tag_invalid": "The tag does not match any of the expected tags",
    "url_parsing": "Input should be a valid URL",
    "url_syntax_violation": "Input violates the syntax of URLs",
    "uuid_parsing": "Input should be a valid UUID",
    "value_error": "The value is not valid",
}


class SchemaMismatch(ValueError):
    """Arguments or an output do not fit their schema.

    Attributes:
        errors: One dict a fault, at most 20: `loc` (path, a list), `type`, `msg`; never the rejected content.
    """

    def __init__(self, errors: Sequence[Mapping[str, Any]], message: str = "") -> None:
        self.errors: list[dict[str, Any]] = [dict(error) for error in errors[:MAX_ERRORS]]
        super().__init__(message or explain(self.errors))


def explain(errors: Iterable[Mapping[str, Any]]) -> str:
    """Return the faults as one line: `title: Field required; items.0.price: Input should be …`."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or '(all)'}: {e['msg']}" for e in errors)


def from_pydantic(error: ValidationError, words: frozenset[str], names: Sequence[str] = ()) -> SchemaMismatch:
    """Return the faults that pydantic found, cleaned of content.

    Args:
        words: Names that may stand in a path (see `known_words`); all others are masked.
        names: Arguments that there are; the nearest one is suggested to the developer for one that is not.
    """
    if error.error_count() > MAX_COUNTED:
        return SchemaMismatch([{"loc": [], "type": "many", "msg": f"{error.error_count():,} faults"}])
    faults = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_ERRORS]
    errors = [
        {"loc": mask(fault["loc"], words), "type": _type(fault["type"]), "msg": _message(fault["type"], fault["msg"])}
        for fault in faults
    ]
    extra = []
    for fault, told in zip(faults, errors, strict=True):
        if names and fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1:
            extra.append(str(fault["loc"][0]))
            told["msg"] = not_among(names)
    return SchemaMismatch(errors, explain(errors) + suggest(extra, names))


def not_among(names: Sequence[str]) -> str:
    """Return, for the model, what it may pass instead of an argument that there is not; whose name it knows itself."""
    return f"Not an argument of this tool; there are: {', '.join(names) or 'none'}"[:MAX_TEXT]


def suggest(unknown: Iterable[str], names: Sequence[str]) -> str:
    """Return, for the developer, which argument each unknown one may have meant."""
    hints = []
    for name in unknown:
        near = difflib.get_close_matches(name[:MAX_TEXT], names, n=1)
        if near:
            hints.append(f"; {name[:40]!a} is not an argument: did you mean {near[0]!r}?")
    return "".join(hints)


def mask(loc: Iterable[Any], words: frozenset[str]) -> list[int | str]:
    """Return the beginning of the path, with every part that is not an index or a word of the schema masked."""
    return [part if isinstance(part, int) or part in words else MASK for part in islice(loc, MAX_LOC)]


def known_words(schema: Any) -> frozenset[str]:
    """Return the names that stand in a core schema: fields, aliases, types and labels of unions."""
    words: set[str] = set()
    _collect(schema, words)
    return frozenset(words)


def _collect(node: Any, words: set[str]) -> None:
    if isinstance(node, Mapping):
        fields = node.get("fields")
        if isinstance(fields, Mapping):
            words.update(fields)
        for key in ("type", "name", "alias", "validation_alias", "cls_name", "tag"):
            word = node.get(key)
            if isinstance(word, str):
                words.add(word)
        cls = node.get("cls")
        if isinstance(cls, type):
            words.add(cls.__name__)
        for key, child in node.items():
            # Metadata and defaults are not part of the shape.
            if key not in {"metadata", "default", "serialization", "ref"}:
                _collect(child, words)
    elif isinstance(node, list | tuple):
        for child in node:
            _collect(child, words)
    elif isinstance(node, str):
        words.add(node)


@cache
def _core_types() -> frozenset[str]:
    return frozenset(get_args(core_schema.ErrorType))


def _type(kind: str) -> str:
    return kind if kind in _core_types() else "custom"


def _message(kind: str, message: str) -> str:
    if kind in _QUOTING:
        return _QUOTING[kind]
    # A validator of the user's own may say anything, with the value in it.
    return message[:MAX_TEXT] if kind in _core_types() else "The value is not valid"
