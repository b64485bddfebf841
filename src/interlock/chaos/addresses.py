"""Where a server listens: `HOST:PORT`, `[IPv6]:PORT`, or `unix:PATH`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from interlock.core.errors import ConfigError

__all__ = ["Address", "Streams", "read_address"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port, or the path of a socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    async def connect(self) -> Streams:
        """Connect; raises OSError."""
        if self.path:
            return await asyncio.open_unix_connection(self.path)
        return await asyncio.open_connection(self.host, self.port)

    async def listen(self, accept: Accept) -> asyncio.Server:
        """Listen; raises OSError."""
        if self.path:
            # asyncio takes away a socket that stands in its place, one that is in use too.
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                _, writer = await asyncio.open_unix_connection(self.path)
                writer.transport.abort()
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            return await asyncio.start_unix_server(accept, self.path)
        return await asyncio.start_server(accept, self.host, self.port)

    def clear(self) -> None:
        """Remove what listening has left in the file system."""
        if self.path:
            Path(self.path).unlink(missing_ok=True)

    def bound(self, server: asyncio.Server) -> Address:
        """Return the address with the port that the system chose."""
        return self if self.path else replace(self, port=int(server.sockets[0].getsockname()[1]))


def read_address(text: str, option: str, *, any_port: bool = False) -> Address:
    """Return the address that `text` says.

    Raises:
        ConfigError: It is none; `option` is what the text was given for.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or len(path.encode()) > 100:
            raise ConfigError(f"{option} {text}: the path of a socket has 1 to 100 bytes")
        return Address(path=path)
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()):
        raise ConfigError(f"{option} {text}: write HOST:PORT, like 127.0.0.1:8080, or unix:PATH")
    if not (0 if any_port else 1) <= int(port) <= 65_535:
        raise ConfigError(f"{option} {text}: a port is 1 to 65535{', or 0 for any' if any_port else ''}")
    return Address(host, int(port))
