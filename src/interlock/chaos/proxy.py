"""A fault proxy before a real server of any kind: what passes is forwarded byte for byte, but for the faults.

    lost = WireFault(WireKind.ANSWER_LOST, what="INSERT", calls=(3,))
    async with FaultProxy("127.0.0.1:5432", [lost], framing="postgres") as proxy:
        ...  # clients connect to proxy.address

The server does what it is asked, really: `answer_lost` lets it finish, and then loses the answer. Ends with the block:
no connection, no task and no listening socket is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

from interlock.chaos.addresses import read_address
from interlock.chaos.conversation import Conversation
from interlock.chaos.framing import FramingName, framing
from interlock.chaos.model_turns import Earlier, Met, Turn
from interlock.chaos.wire import (
    MODEL_WIRE_KINDS,
    READ_AS_HTTP,
    ArmedWireFault,
    WireFault,
    WireKind,
    model_path,
    unfit,
)
from interlock.core.clock import SYSTEM, Clock
from interlock.core.errors import ConfigError

__all__ = ["FaultProxy", "Injected"]


class Injected(NamedTuple):
    """One injected fault.

    Attributes:
        at_s: Seconds since the proxy was started or armed. fault: its label.
        connection, request: Numbers (from 1) over the life of the proxy; 0 where there is none.
        what: `POST /tickets`, `INSERT`, or "" where the framing knows no names.
    """

    at_s: float
    fault: str
    connection: int
    request: int
    what: str


class FaultProxy:
    """Listens, and forwards to one server.

    Args:
        to: `HOST:PORT`, `unix:PATH` or `https://HOST` of the server. faults: what goes wrong. seed: of chance.
        listen: Where clients connect; port 0 takes a free one.
        framing: What the bytes are: `http`, `postgres`, `model`, or `tcp` for anything.
        told: Called with each injected fault. failed: with each connection that the server did not take, and why.
        clock: Time.

    Attributes:
        connections, requests: How many have come since the start.
        injected: Label of a fault to how often, since the last `arm`.

    Raises:
        ConfigError: An address cannot be read, or a fault needs another framing.
    """

    def __init__(
        self,
        to: str,
        faults: Sequence[WireFault] = (),
        *,
        seed: int = 0,
        listen: str = "127.0.0.1:0",
        framing: FramingName = "tcp",
        told: Callable[[Injected], None] | None = None,
        failed: Callable[[str], None] | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self._to = read_address(to, "--to", https=True)
        self._listen = read_address(listen, "--listen", any_port=True)
        self._framing: FramingName = framing
        if self._to.tls and framing not in READ_AS_HTTP:
            raise ConfigError(f"--to {to}: what is read there is HTTP: say --speaks http or model")
        self._seed = seed
        self._told = told
        self._failed = failed
        self.clock = clock
        self.connections = 0
        self.requests = 0
        self._armed_at = 0
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self._door: asyncio.Task[None] | None = None
        self._began_s = clock.monotonic()
        self.injected: Counter[str] = Counter()
        self._armed: list[ArmedWireFault] = []
        self._arm(faults)

    @property
    def address(self) -> str:
        """`HOST:PORT` or `unix:PATH` that clients connect to."""
        return str(self._listen)

    @property
    def port(self) -> int:
        """The port that clients connect to; 0 for a socket in the file system."""
        return self._listen.port

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The address is taken, or is not one of this machine.
        """
        self._began_s = self.clock.monotonic()
        await self._open()
        self._mind_the_door()

    async def check(self, within_s: float = 5.0) -> None:
        """Connect to the server once, and hang up.

        Raises:
            ConfigError: Nothing listens there, or it cannot be reached.
        """
        try:
            async with asyncio.timeout(within_s):
                _, writer = await self._to.connect()
        except TimeoutError:
            raise ConfigError(f"--to {self._to}: cannot be reached: no answer within {within_s:g} s") from None
        except OSError as error:
            raise ConfigError(f"--to {self._to}: cannot be reached: {said(error)}") from None
        writer.transport.abort()

    async def arm(self, faults: Sequence[WireFault], *, seed: int | None = None) -> None:
        """From now on inject these faults; numbers, windows and counts begin anew, and chance with another seed."""
        self._seed = self._seed if seed is None else seed
        self._arm(faults)
        self._armed_at = self.connections
        self.injected = Counter()
        self._began_s = self.clock.monotonic()
        await self._no_door()
        if self._server is None:
            await self._open()
        self._mind_the_door()

    async def close(self) -> None:
        """Stop listening, and cut all connections."""
        await self._no_door()
        self._shut()
        await self.cut()

    async def cut(self) -> None:
        """Reset all connections, on both sides."""
        talks = list(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- what a conversation asks

    def strikes(self, connection: int, what: str) -> list[Met]:
        """Count one request, and return the faults that it meets."""
        self.requests += 1
        elapsed_s = self.clock.monotonic() - self._began_s
        struck = [armed.fault for armed in self._armed if armed.strikes(connection - self._armed_at, what, elapsed_s)]
        met = []
        for fault in struck:
            injected = Injected(elapsed_s, fault.label, connection, self.requests, what)
            met.append(Met(fault, partial(self._tell, injected)))
            if fault.kind not in MODEL_WIRE_KINDS:
                self._tell(injected)
        return met

    def turn(self, what: str, met: Sequence[Met]) -> Turn | None:
        """Return what reads a request and its answer, if a fault of the model may concern it."""
        if not self._of_model or model_path(what) is None:
            return None
        return Turn(what, met, self._earlier if self._remembers else None)

    # -- inside

    def _arm(self, faults: Iterable[WireFault]) -> None:
        armed = [ArmedWireFault(fault, number, self._seed) for number, fault in enumerate(faults)]
        for each in armed:
            why = unfit(each.fault, self._framing)
            if why is not None:
                raise ConfigError(why)
        self._armed = armed
        self._earlier = Earlier()
        self._of_model = any(each.fault.kind in MODEL_WIRE_KINDS for each in armed)
        self._remembers = any(each.fault.kind is WireKind.MODEL_REPEATS for each in armed)

    def _tell(self, injected: Injected) -> None:
        self.injected[injected.fault] += 1
        if self._told is not None:
            self._told(injected)

    async def _open(self) -> None:
        try:
            self._server = await self._listen.listen(self._accept)
        except OSError as error:
            raise ConfigError(f"--listen {self._listen}: cannot be used: {said(error)}") from None
        self._listen = self._listen.bound(self._server)

    def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self._listen.clear()

    def _mind_the_door(self) -> None:
        refused = [armed.fault for armed in self._armed if armed.fault.kind is WireKind.CONNECT_REFUSED]
        if any(fault.from_s <= 0 for fault in refused):
            self._shut()
        if refused:
            self._door = asyncio.create_task(self._open_and_shut(refused))

    async def _open_and_shut(self, refused: Sequence[WireFault]) -> None:
        """Be shut during the windows: then a connection is refused, by the operating system."""
        for fault in sorted(refused, key=lambda each: each.from_s):
            await self.clock.sleep(max(0.0, self._began_s + fault.from_s - self.clock.monotonic()))
            self._shut()
            self._tell(Injected(self.clock.monotonic() - self._began_s, fault.label, 0, 0, ""))
            if fault.until_s is None:
                return
            await self.clock.sleep(max(0.0, self._began_s + fault.until_s - self.clock.monotonic()))
            try:
                await self._open()
            except ConfigError as error:  # somebody else took the port meanwhile
                if self._failed is not None:
                    self._failed(str(error))
                return

    async def _no_door(self) -> None:
        door, self._door = self._door, None
        if door is not None:
            door.cancel()
            await asyncio.gather(door, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        talk = asyncio.ensure_future(self._talk(self.connections, reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client: Any = (reader, writer)
        try:
            server = await self._to.connect()
        except OSError as error:
            if self._failed is not None:
                self._failed(f"connection {number}: --to {self._to}: {said(error)}")
            writer.transport.abort()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        host = self._to.named if self._to.tls else ""
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            await Conversation(number, client, server, framing(self._framing), self, self.clock, host).hold()


def said(error: OSError) -> str:
    """Return what the operating system says, without addresses and numbers."""
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "verify_message", "") or error.reason or error).lower()
    # asyncio puts addresses into its texts; those of the resolver have numbers below 0.
    known = error.errno is not None and error.errno > 0
    return (os.strerror(error.errno or 0) if known else error.strerror or str(error) or type(error).__name__).lower()
