"""Two names for one intended effect, stable across retries, workers and redelivery.

The *effect key* is ours: it begins with the time of the request's first claim, so that rows of one time lie
together in the store, and is keyed, so that nobody can guess arguments back from it. The *sent key* is the
remote's: it must be the same from whichever store it is sent, and tells nothing of tenant or arguments.
Fields are length-prefixed: no separator can be forged.
"""

from __future__ import annotations

import hashlib
import struct

__all__ = ["KEY_BYTES", "TIME_BYTES", "effect_key", "sent_key"]

TIME_BYTES = 8
DIGEST_BYTES = 16
KEY_BYTES = TIME_BYTES + DIGEST_BYTES
SENT_PREFIX = "il1_"

_LENGTHS = struct.Struct(">5I").pack
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
# Two characters at a time: the library's base32 takes four times as long.
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
# A digest of 256 bits, filled up to 260 with zeros.
_SHIFTS = range(250, -1, -10)


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
    fields = _joined(tenant_id.encode(), request_id.encode(), tool.encode(), digest, b"%d" % occurrence)
    return (
        request_time_ms.to_bytes(TIME_BYTES, "big")
        + hashlib.blake2b(fields, digest_size=DIGEST_BYTES, key=secret).digest()
    )


def sent_key(tenant_id: str, request_id: str, tool: str, identity_json: bytes, occurrence: int) -> str:
    """Return what the remote receives as idempotency key: 56 characters of `a-z2-7_`.

    Args:
        identity_json: Canonical JSON of the arguments, or of those that identify the effect.
    """
    fields = _joined(tenant_id.encode(), request_id.encode(), tool.encode(), identity_json, b"%d" % occurrence)
    number = int.from_bytes(hashlib.sha256(fields).digest(), "big") << 4
    return SENT_PREFIX + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def _joined(a: bytes, b: bytes, c: bytes, d: bytes, e: bytes) -> bytes:
    lengths = _LENGTHS(len(a), len(b), len(c), len(d), len(e))
    return b"".join((lengths[:4], a, lengths[4:8], b, lengths[8:12], c, lengths[12:16], d, lengths[16:], e))
