"""Where a server listens: `HOST:PORT`, `[IPv6]:PORT`, `unix:PATH`, or `https://HOST[:PORT]`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from interlock.core.errors import ConfigError

__all__ = ["Address", "Streams", "read_address"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HTTPS = 443
Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port, or the path of a socket.

    Attributes:
        tls: What is said there is encrypted; the server must have a certificate that this machine trusts.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        if self.tls:
            return f"https://{self.named}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def named(self) -> str:
        """What an HTTP client says that it wants to reach."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.tls and self.port == HTTPS else f"{host}:{self.port}"

    async def connect(self) -> Streams:
        """Connect; raises OSError."""
        if self.path:
            return await asyncio.open_unix_connection(self.path)
        if self.tls:
            trusted = _trusted(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
            return await asyncio.open_connection(self.host, self.port, ssl=trusted)
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


@functools.lru_cache(maxsize=4)
def _trusted(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    """Return a context that trusts what this machine trusts; OpenSSL reads these two variables."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def read_address(text: str, option: str, *, any_port: bool = False, https: bool = False) -> Address:
    """Return the address that `text` says.

    Args:
        any_port: Port 0 is one. https: `https://HOST[:PORT]` is one.

    Raises:
        ConfigError: It is none; `option` is what the text was given for.
    """
    if text.startswith("https://") and https:
        there = text.removeprefix("https://").removesuffix("/")
        if "/" in there:
            raise ConfigError(f"{option} {text}: write https://HOST[:PORT]: the path is what clients ask for")
        has_port = there.rpartition("]")[2].count(":") > 0
        return replace(read_address(there if has_port else f"{there}:{HTTPS}", option), tls=True)
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or len(path.encode()) > 100:
            raise ConfigError(f"{option} {text}: the path of a socket has 1 to 100 bytes")
        return Address(path=path)
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()):
        raise ConfigError(
            f"{option} {text}: write HOST:PORT, like 127.0.0.1:8080, or unix:PATH{', or https://HOST' if https else ''}"
        )
    if not (0 if any_port else 1) <= int(port) <= 65_535:
        raise ConfigError(f"{option} {text}: a port is 1 to 65535{', or 0 for any' if any_port else ''}")
    return Address(host, int(port))
