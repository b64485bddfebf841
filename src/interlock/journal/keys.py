"""Two names for one intended effect, stable across retries, workers and redelivery.

The *effect key* is ours: it begins with the time of the request's first claim, so that rows of one time lie
together in the store, and is keyed, so that nobody can guess arguments back from it. The *sent key* is the
remote's: it must be the same from whichever store it is sent, and tells nothing of tenant or arguments.
Fields are length-prefixed: no separator can be forged.
"""

from __future__ import annotations

import functools
import hashlib
import struct

from interlock.core.canonical import hasher

__all__ = ["KEY_BYTES", "TIME_BYTES", "effect_key", "sent_key"]

TIME_BYTES = 8
DIGEST_BYTES = 16  # as `hasher` makes them
KEY_BYTES = TIME_BYTES + DIGEST_BYTES
SENT_PREFIX = "il1_"

_LENGTH = struct.Struct(">I").pack
_ALPHABET = b"abcdefghijklmnopqrstuvwxyz234567"
# Equal for all effects of a store; for all calls of one tool in one request.
_keyed = functools.lru_cache(maxsize=16)(hasher)
# A digest of 256 bits, filled up to 260 with zeros: 52 characters of 5 bits.
_CHARACTERS, _FILL = 52, 4


def _halvings(groups: int) -> list[tuple[int, int, int]]:
    """Return the steps that spread `groups` times 5 bits over as many bytes: which bits stay, which go up, how far.

    Each step halves what lies together, in all places at once; `groups` is a power of 2.
    """
    steps = []
    together = groups
    while together > 1:
        half = together // 2
        stay = sum(((1 << 5 * half) - 1) << 8 * at for at in range(0, groups, together))
        steps.append((stay, stay << 5 * half, 3 * half))
        together = half
    return steps


_HALVINGS = _halvings(64)
_LETTERS = _ALPHABET.ljust(256, b"?")


def effect_key(
    request_time_ms: int, tenant_id: str, request_id: str, tool: str, digest: bytes, occurrence: int, secret: bytes
) -> bytes:
    """Return the 24-byte key of an effect.

    Args:
        request_time_ms: When (tenant, root request id) was first claimed.
        digest: Keyed digest of the arguments, or of those that identify the effect.
        occurrence: n-th equal write of the request, from 1.
        secret: The store's.
    """
    fields = _head(tenant_id, request_id, tool) + _tail(digest, occurrence)
    return request_time_ms.to_bytes(TIME_BYTES, "big") + _keyed(secret)(fields)


def sent_key(tenant_id: str, request_id: str, tool: str, identity_json: bytes, occurrence: int) -> str:
    """Return what the remote receives as idempotency key: 56 characters of `a-z2-7_`.

    Args:
        identity_json: Canonical JSON of the arguments, or of those that identify the effect.
    """
    fields = _head(tenant_id, request_id, tool) + _tail(identity_json, occurrence)
    # Base32; the library's takes six times as long.
    number = int.from_bytes(hashlib.sha256(fields).digest(), "big") << _FILL
    for stay, go_up, far in _HALVINGS:
        number = number & stay | (number & go_up) << far
    return SENT_PREFIX + number.to_bytes(_CHARACTERS, "big").translate(_LETTERS).decode()


@functools.lru_cache(maxsize=2_048)
def _head(tenant_id: str, request_id: str, tool: str) -> bytes:
    return b"".join(_LENGTH(len(field)) + field for field in (tenant_id.encode(), request_id.encode(), tool.encode()))


def _tail(identity: bytes, occurrence: int) -> bytes:
    nth = b"%d" % occurrence
    return b"%b%b%b%b" % (_LENGTH(len(identity)), identity, _LENGTH(len(nth)), nth)
