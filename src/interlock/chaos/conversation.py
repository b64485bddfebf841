"""One connection through a fault proxy: client and server, and what becomes of each request between them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from interlock.chaos.addresses import Streams
from interlock.chaos.framing import Framing, Piece
from interlock.chaos.http_message import addressed, plainly_asked
from interlock.chaos.model_turns import Met, Turn, turned_away
from interlock.chaos.wire import ANSWER_KINDS, WireFault, WireKind
from interlock.core.clock import Clock

__all__ = ["Conversation"]

READ_BYTES = 65_536
# Where nobody knows the end of an answer: it is taken to be whole after so much silence.
QUIET_S = 0.1
# What was said last may still arrive.
FLUSH_S = 5.0
SLOW_S, DRIP_S = 1.0, 0.05
SLICES_A_SECOND = 20


class Strikes(Protocol):
    """Says what requests meet."""

    def strikes(self, connection: int, what: str) -> list[Met]:
        """Count one request, and return the faults that it meets."""
        ...

    def turn(self, what: str, met: Sequence[Met]) -> Turn | None:
        """Return what reads a request to a model and its answer, if a fault may concern it."""
        ...


class _Over(Exception):
    """The connection has met its end."""


@dataclass(eq=False)
class _Request:
    """A request that has passed, and what its answer meets.

    Attributes:
        spoils: Faults of its answer. sent: how many bytes of the answer have come. limit: how many may pass.
        turn: Reads it, where a model is asked.
    """

    spoils: list[WireFault]
    turn: Turn | None = None
    sent: int = 0
    limit: int | None = None

    def spoilt_by(self, *kinds: WireKind) -> WireFault | None:
        """Return the first fault of these kinds."""
        return next((fault for fault in self.spoils if fault.kind in kinds), None)


class Conversation:
    """Forwards between two streams until one of them, or a fault, ends it.

    Args:
        number: Of the connection. client, server: Its two sides.
        framing: Reads the bytes. strikes: Told of each request; says what it meets.
        host: Name of the server, where it does not answer to the one that clients of the proxy use.
    """

    def __init__(
        self,
        number: int,
        client: Streams,
        server: Streams,
        framing: Framing,
        strikes: Strikes,
        clock: Clock,
        host: str = "",
    ) -> None:
        self._number = number
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._framing = framing
        self._strikes = strikes
        self._clock = clock
        self._host = host
        self._open: deque[_Request] = deque()
        # Nothing passes any more, and the client is not to hear of it.
        self._mute = False
        self._refusal: WireFault | None = None
        self._refused = b""
        self._asking: Turn | None = None
        self._up_bytes_per_s: int | None = None

    async def hold(self) -> None:
        """Forward until it is over; both sides are closed then."""
        ways = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
            self._to_client.close()
            # What has been said is still to arrive, but not for ever.
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._to_client.wait_closed()
        finally:
            self._to_client.transport.abort()
            self._to_server.transport.abort()
            for way in ways:
                way.cancel()
            ends = await asyncio.gather(*ways, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, _Over | OSError):
                raise end

    # -- from the client

    async def _up(self) -> None:
        while data := await self._from_client.read(READ_BYTES):
            for piece in self._framing.asked(data):
                await self._ask(piece)
        if self._mute or self._refusal is not None:
            raise _Over
        await self._pass(self._to_server, self._framing.kept("client"), self._up_bytes_per_s)
        if self._to_server.can_write_eof():
            self._to_server.write_eof()

    async def _ask(self, piece: Piece) -> None:
        if piece.begins is not None and not self._mute and self._refusal is None:
            await self._meet(piece.begins)
        if self._refusal is not None:
            if piece.ends:
                await self._answer(self._refusal)
        elif not self._mute:
            data = piece.data
            if piece.begins and self._host:
                data = addressed(data, self._host)
            if self._asking is not None:
                data = data if piece.begins is None else plainly_asked(data)
                self._asking.ask(data)
            await self._pass(self._to_server, data, self._up_bytes_per_s)

    async def _meet(self, what: str) -> None:
        """Let a request meet its faults, before its first byte passes."""
        met = self._strikes.strikes(self._number, what)
        struck = [each.fault for each in met]
        self._up_bytes_per_s = next((f.bytes_per_s for f in struck if f.kind is WireKind.BANDWIDTH), None)
        if not self._framing.knows_ends:
            self._open.clear()  # who asks again has had the answer
        self._asking = self._strikes.turn(what, met) if self._framing.knows_ends else None
        self._open.append(_Request([fault for fault in struck if fault.kind in ANSWER_KINDS], self._asking))
        for fault, tell in met:
            if fault.kind is WireKind.LATENCY:
                await self._clock.sleep(SLOW_S if fault.delay_s is None else fault.delay_s)
            elif fault.kind is WireKind.RESET:
                self._reset()
            elif fault.kind in {WireKind.HTTP, WireKind.MODEL_RATE_LIMITED}:
                self._refusal = fault  # once the client has said all
                if fault.kind is WireKind.MODEL_RATE_LIMITED:
                    self._refused = turned_away(what)
                    tell()
                return
            elif fault.kind in {WireKind.TIMEOUT, WireKind.BLACK_HOLE}:
                await self._swallow(fault)
                return

    async def _swallow(self, fault: WireFault) -> None:
        """Let nothing pass from here on; of a black hole, the server does not even hear that the client went away."""
        self._mute = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(fault.delay_s):
                if fault.kind is WireKind.BLACK_HOLE:
                    await asyncio.Event().wait()
                while await self._from_client.read(READ_BYTES):
                    pass
        raise _Over

    async def _answer(self, fault: WireFault) -> None:
        """Answer in the server's place, and hang up."""
        status = 429 if fault.kind is WireKind.MODEL_RATE_LIMITED else fault.status or 503
        body = self._refused or f'{{"error":{{"code":{status},"message":"injected"}}}}'.encode()
        after = "" if fault.retry_after_s is None else f"Retry-After: {fault.retry_after_s:g}\r\n"
        head = (
            f"HTTP/1.1 {status} {_phrase(status)}\r\nContent-Type: application/json\r\n{after}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._to_client.write(head.encode() + body)
        raise _Over

    # -- from the server

    async def _down(self) -> None:
        while data := await self._heard():
            for piece in self._framing.answered(data):
                await self._tell(piece)
        if self._mute:
            await asyncio.Event().wait()
        if self._open:
            await self._turned(self._open[0], hung_up=True)
        await self._whole()
        # A server that has hung up answers nothing more; what the client still says, nobody hears.
        await self._pass(self._to_client, self._framing.kept("server"), None)
        raise _Over

    async def _heard(self) -> bytes:
        """Return what the server says next; where nobody knows its end, an answer to lose is whole after a silence."""
        request = self._open[0] if self._open else None
        loses = request is not None and request.sent and request.spoilt_by(WireKind.ANSWER_LOST) is not None
        if not loses or self._framing.knows_ends:
            return await self._from_server.read(READ_BYTES)
        try:
            async with asyncio.timeout(QUIET_S):
                return await self._from_server.read(READ_BYTES)
        except TimeoutError:
            await self._whole()
            raise _Over from None

    async def _tell(self, piece: Piece) -> None:
        if self._mute:
            return
        request = self._open[0] if self._open else None
        if request is None or piece.interim:
            await self._pass(self._to_client, piece.data, None)
            return
        passing = piece.data if request.turn is None else request.turn.answer(piece.data)
        await self._say(request, passing, piece.total)
        if piece.ends:
            await self._turned(request)
            await self._whole()
            self._open.popleft()

    async def _turned(self, request: _Request, *, hung_up: bool = False) -> None:
        """Say what has been held of a model's answer, now that it is whole."""
        turn, request.turn = request.turn, None
        held = [] if turn is None else turn.end(hung_up=hung_up)
        for said in held:
            await self._clock.sleep(said.wait_s)
            await self._say(request, said.data, sum(len(each.data) for each in held))

    async def _say(self, request: _Request, data: bytes, total: int | None) -> None:
        if not data:
            return
        if not request.sent:
            self._first(request, total or len(data))
        request.sent += len(data)
        if request.spoilt_by(WireKind.ANSWER_LOST) is None:
            await self._spoil(request, data)

    def _first(self, request: _Request, total: int) -> None:
        """The answer begins."""
        cut = request.spoilt_by(WireKind.RESET_MID_BODY, WireKind.MALFORMED_BODY, WireKind.HALF_OPEN)
        if cut is not None:
            half = max(1, total // 2)
            request.limit = cut.after_bytes
            if request.limit is None:
                request.limit = 0 if cut.kind is WireKind.HALF_OPEN else half

    async def _spoil(self, request: _Request, data: bytes) -> None:
        limit = request.limit
        passing = data if limit is None else data[: max(0, limit - (request.sent - len(data)))]
        drip = request.spoilt_by(WireKind.DRIP)
        slow = request.spoilt_by(WireKind.BANDWIDTH)
        if drip is not None:
            delay_s = DRIP_S if drip.delay_s is None else drip.delay_s
            for at in range(0, len(passing), drip.chunk_bytes):
                await self._pass(self._to_client, passing[at : at + drip.chunk_bytes], None)
                await self._clock.sleep(delay_s)
        else:
            await self._pass(self._to_client, passing, slow.bytes_per_s if slow is not None else None)
        if limit is not None and request.sent >= limit:
            await self._cut(request)

    async def _cut(self, request: _Request) -> None:
        cut = request.spoilt_by(WireKind.RESET_MID_BODY, WireKind.MALFORMED_BODY, WireKind.HALF_OPEN)
        assert cut is not None
        if cut.kind is WireKind.HALF_OPEN:
            self._mute = True
            self._to_server.transport.abort()
            await asyncio.Event().wait()  # until the client goes away
        if cut.kind is WireKind.RESET_MID_BODY:
            self._reset()
        raise _Over

    async def _whole(self) -> None:
        """The server has said its answer to the first open request, or will say no more."""
        lost = self._open[0].spoilt_by(WireKind.ANSWER_LOST) if self._open and self._open[0].sent else None
        if lost is None:
            return
        if lost.status is not None:
            await self._answer(lost)
        self._reset()

    # -- both

    async def _pass(self, to: asyncio.StreamWriter, data: bytes, bytes_per_s: int | None) -> None:
        if not data:
            return
        if bytes_per_s is None:
            to.write(data)
            await to.drain()
            return
        size = max(1, bytes_per_s // SLICES_A_SECOND)
        for at in range(0, len(data), size):
            part = data[at : at + size]
            to.write(part)
            await to.drain()
            await self._clock.sleep(len(part) / bytes_per_s)

    def _reset(self) -> None:
        # With a linger of zero seconds, closing sends RST instead of FIN.
        sock = self._to_client.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._to_client.transport.abort()
        raise _Over


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Injected"
