"""Two names for one intended effect, stable across retries, workers and redelivery.

The *effect key* is ours: it begins with the time of the request's first claim, so that rows of one time lie
together in the store, and is keyed, so that nobody can guess arguments back from it. The *sent key* is the
remote's: it must be the same from whichever store it is sent, and tells nothing of tenant or arguments.
Fields are length-prefixed: no separator can be forged.
"""

from __future__ import annotations

import base64
import hashlib

__all__ = ["KEY_BYTES", "TIME_BYTES", "effect_key", "sent_key"]

TIME_BYTES = 8
DIGEST_BYTES = 16
KEY_BYTES = TIME_BYTES + DIGEST_BYTES
SENT_PREFIX = "il1_"


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
    digest = hashlib.sha256(fields).digest()
    return SENT_PREFIX + base64.b32encode(digest).decode("ascii").rstrip("=").lower()


def _joined(*fields: bytes) -> bytes:
    return b"".join([part for field in fields for part in (len(field).to_bytes(4, "big"), field)])
