"""One whole HTTP/1.x message as bytes: its head, its body without framing and coding, and the message made of them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Message", "addressed", "plainly_asked", "read_message", "write_message"]

_HEAD_END = b"\r\n\r\n"
_FRAMED_BY = {b"content-length", b"transfer-encoding", b"content-encoding", b"trailer"}
_ACCEPTS = re.compile(rb"\r\naccept-encoding:[^\r\n]*", re.IGNORECASE)
_HOST = re.compile(rb"\r\nhost:[^\r\n]*", re.IGNORECASE)
_CODINGS = {b"": None, b"identity": None, b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


class Message(NamedTuple):
    """A message.

    Attributes:
        lines: The first line, and the fields that do not say how the body is framed. fields: by name, lower case.
        body: As its sender meant it; None where its coding is not known.
    """

    lines: tuple[bytes, ...]
    fields: dict[bytes, bytes]
    body: bytes | None

    @property
    def is_framed(self) -> bool:
        """Whether it says where it ends."""
        return b"content-length" in self.fields or b"transfer-encoding" in self.fields

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.lines[0].split(b" ", 2)[1][:3])


def read_message(data: bytes) -> Message:
    """Read a whole message."""
    head, _, body = data.partition(_HEAD_END)
    first, *rest = head.split(b"\r\n")
    named = [(line.partition(b":")[0].strip().lower(), line) for line in rest]
    fields = {name: line.partition(b":")[2].strip() for name, line in named}
    if fields.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
        body = b"".join(_chunks(body))
    kept = (line for name, line in named if name not in _FRAMED_BY)
    return Message((first, *kept), fields, _decoded(body, fields.get(b"content-encoding", b"").lower()))


def write_message(message: Message, pieces: Sequence[bytes]) -> list[bytes]:
    """Return the head, with the length of the body, and the body in the pieces given."""
    length = b"Content-Length: %d" % sum(map(len, pieces))
    return [b"\r\n".join((*message.lines, length)) + _HEAD_END, *pieces]


def plainly_asked(head: bytes) -> bytes:
    """Return the head of a request that takes no coding of the answer's body."""
    return _ACCEPTS.sub(b"\r\nAccept-Encoding: identity", head)


def addressed(head: bytes, host: str) -> bytes:
    """Return the head of a request that is sent to this host."""
    return _HOST.sub(b"\r\nHost: " + host.encode(), head, count=1)


def _chunks(body: bytes) -> list[bytes]:
    found, at = [], 0
    while (end := body.find(b"\r\n", at)) >= 0:
        size = int(body[at:end].split(b";")[0] or b"0", 16)
        if not size:
            break
        found.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return found


def _decoded(body: bytes, coding: bytes) -> bytes | None:
    if coding not in _CODINGS:
        return None
    bits = _CODINGS[coding]
    if bits is None:
        return body
    try:
        return zlib.decompress(body, wbits=bits)
    except zlib.error:
        return None
