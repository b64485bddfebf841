"""Canonical JSON, and the two hashes taken of it.

Bytes are orjson's with sorted keys, which differ from RFC 8785 in that `1.0` stays `1.0` and `-0.0` stays
`-0.0`. What JSON cannot hold is refused rather than bent: NaN and infinities, integers beyond 64 bits,
bytes, cycles, keys that are not text, nesting beyond the 254 levels that orjson bears.

`digest` is keyed (BLAKE2b with the store's secret), so that hashes in a store or a log cannot be guessed
back into arguments; `plain_hash` is SHA-256 without a key, for oracles and exports.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import orjson

__all__ = ["NotCanonical", "canonical_json", "digest", "hasher", "plain_hash"]

MAX_DEPTH = 254  # orjson's own
DIGEST_BYTES = 16
_LEAF = str | int | None


class NotCanonical(ValueError):
    """The value cannot be written as canonical JSON; the message says where and why, never the value."""


def _dump_of(value: Any) -> Callable[..., Any] | None:
    """Return how a pydantic model, or what behaves as one, is written; None for other values."""
    dump = getattr(value, "model_dump", None)
    return dump if callable(dump) else None


def _default(value: Any) -> Any:
    dump = _dump_of(value)
    if dump is not None:
        return dump(mode="json")
    if isinstance(value, set | frozenset):
        raise NotCanonical("a set has no order: use a list")
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def canonical_json(value: Any) -> bytes:
    """Return the canonical bytes of `value`: equal values give equal bytes, whatever the order of keys.

    Raises:
        NotCanonical: The value, or a part of it, is not JSON.
    """
    try:
        data = orjson.dumps(value, _default, orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotCanonical(_explain(error)) from None
    # orjson writes NaN and infinities as null: look closer only where a null stands.
    if b"null" in data:
        _refuse_nan(value, "$", 0)
    # orjson hands out its whole buffer, at least 4 KiB: what is kept for the length of a call is kept as a copy.
    return b"%b" % data


def digest(data: bytes, secret: bytes) -> bytes:
    """Return the keyed 16-byte digest of canonical bytes; `secret` is at most 64 bytes."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=secret).digest()


def hasher(secret: bytes) -> Callable[[bytes], bytes]:
    """Return `digest` with its key already taken in, which halves what a call pays."""
    fresh = hashlib.blake2b(digest_size=DIGEST_BYTES, key=secret).copy

    def keyed(data: bytes) -> bytes:
        state = fresh()
        state.update(data)
        return state.digest()

    return keyed


def plain_hash(value: Any) -> str:
    """Return the hexadecimal SHA-256 of the canonical JSON of `value`, the same on every machine."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _refuse_nan(value: Any, path: str, depth: int) -> None:
    if isinstance(value, _LEAF):  # most of what there is; to ask for a protocol costs far more
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotCanonical(f"{path}: NaN and infinities are not JSON")
    elif depth > MAX_DEPTH:
        raise NotCanonical(f"{path[:60]}: nested deeper than {MAX_DEPTH} levels")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_nan(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _refuse_nan(item, f"{path}[{i}]", depth + 1)
    elif (dump := _dump_of(value)) is not None:
        _refuse_nan(dump(mode="python"), path, depth + 1)
    elif isinstance(value, Enum):  # orjson writes the value of an enum, and the fields of a dataclass, by itself
        _refuse_nan(value.value, path, depth + 1)
    elif hasattr(value, "__dataclass_fields__"):
        for name in {**value.__dataclass_fields__, **getattr(value, "__dict__", {})}:
            _refuse_nan(getattr(value, name, None), f"{path}.{name}", depth + 1)


def _explain(error: Exception) -> str:
    if isinstance(error.__cause__, NotCanonical):
        return str(error.__cause__)
    text = str(error)
    if "ecursion" in text:  # of orjson, of its calls back to us, or of Python
        return f"nested deeper than {MAX_DEPTH} levels, or contains itself"
    if "64-bit" in text:
        return "an integer does not fit into 64 bits: pass it as text"
    if "Dict key" in text:
        return "keys must be text"
    if "surrogates" in text:
        return "text is not valid Unicode"
    return text
