"""Where requests and answers begin and end in the bytes of a connection: pure machines, fed with what passes.

`http` and `postgres` are read as such, `model` as `http`. `tcp` is anything else: a request begins with the first
bytes of the client after bytes of the server, and nobody knows where an answer ends. A connection that is not what it
was said to be (TLS, a body of unknown form) is read as `tcp` from there on. No byte is ever changed; kept back is
only the beginning of a message that is not whole yet.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol

__all__ = ["FRAMINGS", "Framing", "FramingName", "Piece", "framing"]

FramingName = Literal["tcp", "http", "postgres", "model"]
Side = Literal["client", "server"]
FRAMINGS: tuple[FramingName, ...] = ("tcp", "http", "postgres", "model")

MAX_HEAD_BYTES = 65_536
WHAT_CHARACTERS = 120


class Piece(NamedTuple):
    """Bytes to pass on.

    Attributes:
        begins: Of a client: the request that begins with these bytes ("" has no name); None: they go on with it.
        ends: The request, or the answer, ends with them. total: of a piece that begins an answer: how many bytes the
            whole answer has, where that is known. interim: it is no part of the answer yet.
    """

    data: bytes
    begins: str | None = None
    ends: bool = False
    total: int | None = None
    interim: bool = False


class Framing(Protocol):
    """Reads one connection."""

    @property
    def knows_ends(self) -> bool:
        """Whether answers end where it says; otherwise nobody knows."""
        ...

    def asked(self, data: bytes) -> Iterator[Piece]:
        """Take in bytes of the client."""
        ...

    def answered(self, data: bytes) -> Iterator[Piece]:
        """Take in bytes of the server."""
        ...

    def kept(self, side: Side) -> bytes:
        """Give up what is kept back of a side that will send no more."""
        ...


def framing(name: FramingName) -> Framing:
    """Return a machine for one connection."""
    machines: dict[FramingName, Callable[[], Framing]] = {
        "tcp": Turns,
        "http": Http,
        "postgres": Postgres,
        "model": Http,
    }
    return machines[name]()


_STARTUP_ANSWERED_BY_A_BYTE = {80_877_103, 80_877_104}  # may we encrypt: by TLS, by GSSAPI
_CANCEL = 80_877_102
MAX_STATEMENTS = 10_000


class Turns:
    """Client and server take turns."""

    knows_ends = False

    def __init__(self) -> None:
        self._answered = True

    def asked(self, data: bytes) -> Iterator[Piece]:
        """See `Framing`."""
        begins = "" if self._answered else None
        self._answered = False
        yield Piece(data, begins)

    def answered(self, data: bytes) -> Iterator[Piece]:
        """See `Framing`."""
        self._answered = True
        yield Piece(data)

    def kept(self, side: Side) -> bytes:  # noqa: ARG002 - keeps nothing back
        """See `Framing`."""
        return b""


class _Body:
    """Counts a body down: by its length, by chunks, or without end (`left` is None)."""

    def __init__(self, head: bytes, *, without: bool, endless: bool) -> None:
        fields = _fields(head)
        self.chunked = not without and fields.get(b"transfer-encoding", b"").lower().endswith(b"chunked")
        length = fields.get(b"content-length", b"")
        self.left: int | None = None if endless and not length else 0
        if length.isdigit():
            self.left = int(length)
        if without:
            self.left = 0
        if self.chunked:
            self.left = 0
            self._state = "size"
            self._line = b""

    def take(self, data: bytes) -> tuple[int, bool]:
        """Return how many of these bytes belong to the body, and whether it ends with them."""
        if self.chunked:
            return self._chunks(data)
        if self.left is None:
            return len(data), False
        taken = min(self.left, len(data))
        self.left -= taken
        return taken, self.left == 0

    def _chunks(self, data: bytes) -> tuple[int, bool]:
        at = 0
        assert self.left is not None
        while at < len(data):
            if self.left:
                step = min(self.left, len(data) - at)
                self.left -= step
                at += step
                continue
            end = data.find(b"\n", at)
            piece = data[at:] if end < 0 else data[at : end + 1]
            self._line += piece
            at += len(piece)
            if end < 0:
                break
            line, self._line = self._line.strip(), b""
            if self._state == "trailers":
                if not line:
                    return at, True
            elif line:
                size = int(line.split(b";")[0], 16)
                self.left = size + 2 if size else 0
                self._state = "size" if size else "trailers"
        return at, False


class Http:
    """HTTP/1.x, pipelined or not; what it cannot read goes on as `tcp`."""

    def __init__(self) -> None:
        self._raw: Turns | None = None
        self._methods: deque[bytes] = deque()
        self._heads: dict[Side, bytes] = {"client": b"", "server": b""}
        self._bodies: dict[Side, _Body | None] = {"client": None, "server": None}

    @property
    def knows_ends(self) -> bool:
        """See `Framing`."""
        return self._raw is None

    def asked(self, data: bytes) -> Iterator[Piece]:
        """See `Framing`."""
        return self._read("client", data)

    def answered(self, data: bytes) -> Iterator[Piece]:
        """See `Framing`."""
        return self._read("server", data)

    def kept(self, side: Side) -> bytes:
        """See `Framing`."""
        kept, self._heads[side] = self._heads[side], b""
        return kept

    def _read(self, side: Side, data: bytes) -> Iterator[Piece]:
        while data:
            if self._raw is not None:
                data = self.kept(side) + data
                yield from self._raw.asked(data) if side == "client" else self._raw.answered(data)
                return
            body = self._bodies[side]
            if body is not None:
                try:
                    taken, over = body.take(data)
                except ValueError:
                    self._give_up()
                    continue
                if over:
                    self._bodies[side] = None
                yield Piece(data[:taken], ends=over)
                data = data[taken:]
                continue
            head = self._heads[side] + data
            end = head.find(b"\r\n\r\n")
            if end < 0 and len(head) < MAX_HEAD_BYTES and _may_be_http(side, head):
                self._heads[side] = head
                return
            self._heads[side] = b""
            if end < 0 or not _may_be_http(side, head):
                self._give_up()
                data = head
                continue
            data = head[end + 4 :]
            yield self._head(side, head[: end + 4])

    def _head(self, side: Side, head: bytes) -> Piece:
        if side == "client":
            method, target = head.split(b" ", 2)[:2]
            self._methods.append(method)
            body = _Body(head, without=False, endless=False)
            what = f"{method.decode('latin-1')} {target.partition(b'?')[0].decode('latin-1')}"[:WHAT_CHARACTERS]
            return self._opened(side, body, Piece(head, begins=what))
        status = int(head.split(b" ", 2)[1][:3])
        if status == 101:
            self._give_up()
            return Piece(head)
        if status < 200:
            return Piece(head, interim=True)  # "100 Continue" answers nothing
        method = self._methods.popleft() if self._methods else b""
        without = method == b"HEAD" or status in {204, 304}
        body = _Body(head, without=without, endless=True)
        total = None if body.chunked or body.left is None else len(head) + body.left
        return self._opened(side, body, Piece(head, total=total))

    def _opened(self, side: Side, body: _Body, piece: Piece) -> Piece:
        if body.left == 0 and not body.chunked:
            return piece._replace(ends=True)
        self._bodies[side] = body
        return piece

    def _give_up(self) -> None:
        self._raw = Turns()


def _may_be_http(side: Side, head: bytes) -> bool:
    line = head.split(b"\r\n", 1)[0]
    if side == "server":
        return (
            b"HTTP/1.".startswith(line[:7])
            if len(line) < 13
            else re.match(rb"HTTP/1\.[01] [1-5]\d\d", line) is not None
        )
    if b"\r\n" not in head:
        return re.fullmatch(rb"[A-Z]{0,20}( [^\r\n]*\r?)?", line) is not None
    return re.fullmatch(rb"[A-Z]{1,20} \S+ HTTP/1\.[01]", line) is not None


def _fields(head: bytes) -> dict[bytes, bytes]:
    found = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        found[name.strip().lower()] = value.strip()
    return found


_STARTUP_ANSWERED_BY_A_BYTE = {80_877_103, 80_877_104}  # may we encrypt: by TLS, by GSSAPI
_CANCEL = 80_877_102
MAX_STATEMENTS = 10_000


class Postgres:
    """The PostgreSQL protocol, version 3; a request is a statement, named by its first word.

    It begins with the message that makes the server carry it out and answer: a query, a function call, or a Sync. An
    answer ends where the server is ready for the next.
    """

    def __init__(self) -> None:
        self._raw: Turns | None = None
        self._started = False
        self._asks_to_encrypt = False
        self._open = 0
        self._kept: dict[Side, bytes] = {"client": b"", "server": b""}
        self._statements: dict[bytes, str] = {}
        self._bound = ""

    @property
    def knows_ends(self) -> bool:
        """See `Framing`."""
        return self._raw is None

    def asked(self, data: bytes) -> Iterator[Piece]:
        """See `Framing`."""
        data, at = self.kept("client") + data, 0
        while self._raw is None and (end := _end(data, at, typed=self._started)):
            yield self._from_client(data[at:end])
            at = end
        yield from self._left("client", data[at:])

    def answered(self, data: bytes) -> Iterator[Piece]:
        """See `Framing`."""
        data, at = self.kept("server") + data, 0
        if self._asks_to_encrypt and data:
            self._asks_to_encrypt = False
            self._raw = None if data[:1] == b"N" else Turns()
            yield Piece(data[:1])
            at = 1
        while self._raw is None and (end := _end(data, at, typed=True)):
            # The server is ready for the first time when the session has begun, which is no request.
            over = data[at : at + 1] == b"Z" and self._open > 0
            self._open -= over
            yield Piece(data[at:end], ends=over)
            at = end
        yield from self._left("server", data[at:])

    def kept(self, side: Side) -> bytes:
        """See `Framing`."""
        kept, self._kept[side] = self._kept[side], b""
        return kept

    def _left(self, side: Side, data: bytes) -> Iterator[Piece]:
        typed = self._started or side == "server"
        if self._raw is None and len(data) >= 5 and _length(data, 0, typed=typed) < 4:
            self._raw = Turns()  # no message is so short: this is something else
        if self._raw is None:
            self._kept[side] = data
        elif data:
            yield from self._raw.asked(data) if side == "client" else self._raw.answered(data)

    def _from_client(self, message: bytes) -> Piece:
        if not self._started:
            code = struct.unpack_from("!i", message, 4)[0] if len(message) >= 8 else 0
            self._asks_to_encrypt = code in _STARTUP_ANSWERED_BY_A_BYTE
            self._started = not self._asks_to_encrypt and code != _CANCEL
            return Piece(message)
        kind = message[:1]
        if kind == b"P":
            name, _, rest = message[5:].partition(b"\0")
            self._bound = _first_word(rest)
            if len(self._statements) < MAX_STATEMENTS:
                self._statements[name] = self._bound
        elif kind == b"B":
            name = message[5:].split(b"\0", 2)[1]
            self._bound = self._statements.get(name, "")
        elif kind in {b"Q", b"S", b"F"}:
            self._open += 1
            what = _first_word(message[5:]) if kind == b"Q" else self._bound
            return Piece(message, begins=what, ends=True)
        return Piece(message)


def _length(data: bytes, at: int, *, typed: bool) -> int:
    return int(struct.unpack_from("!i", data, at + typed)[0]) if len(data) >= at + typed + 4 else 4


def _end(data: bytes, at: int, *, typed: bool) -> int:
    """Return where the message that begins at `at` ends; 0 where it is not whole, or none."""
    if len(data) < at + typed + 4:
        return 0
    length = _length(data, at, typed=typed)
    end = at + typed + length
    return end if length >= 4 and len(data) >= end else 0


def _first_word(statement: bytes) -> str:
    found = re.match(rb"[\s(]*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*([A-Za-z]{1,20})", statement, re.DOTALL)
    return found[1].decode().upper() if found else ""
