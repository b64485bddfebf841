"""A proxy before a PostgreSQL server that cuts the connection at the n-th statement: before it, or before its answer."""

from __future__ import annotations

import contextlib
import socket
import struct
import tempfile
import threading
from pathlib import Path

SOCKET = ".s.PGSQL.5432"


class Cutter:
    """Listens on a socket of its own; `folder` is what an URL names as its host.

    Attributes:
        statements: How many have come from clients since `arm`.
        cuts: How many connections were cut.
    """

    def __init__(self, server):
        self.server = str(server.folder / SOCKET)
        self._folder = tempfile.TemporaryDirectory(prefix="il-cut-")
        self.folder = Path(self._folder.name)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / SOCKET))
        self._listener.listen()
        self._lock = threading.Lock()
        self._open = set()
        self.arm(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, at, *, after=False, times=1):
        """Cut at the `at`-th statement from now (0: never); `after` it was carried out, but before it was answered."""
        with self._lock:
            self.at, self.after, self.times, self.statements, self.cuts = at, after, times, 0, 0

    def cut_all(self):
        """Cut what is connected."""
        for one in list(self._open):
            close(one)

    def close(self):
        close(self._listener)
        self.cut_all()
        self._folder.cleanup()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.server)
            except OSError:
                return
            self._open |= {client, server}
            muted = threading.Event()
            threading.Thread(target=self._forward, args=(client, server, muted), daemon=True).start()
            threading.Thread(target=self._back, args=(client, server, muted), daemon=True).start()

    def _forward(self, client, server, muted):
        """From the client: a start-up packet, then messages of type, length and body; Q and S end a statement."""
        try:
            (length,) = struct.unpack("!i", exactly(client, 4))
            server.sendall(struct.pack("!i", length) + exactly(client, length - 4))
            while True:
                head = exactly(client, 5)
                message = head + exactly(client, struct.unpack("!i", head[1:])[0] - 4)
                if head[:1] in b"QS" and self._hit():
                    if not self.after:
                        break
                    muted.set()
                server.sendall(message)
        except OSError:
            pass
        if not muted.is_set():
            close(client)
            close(server)

    def _back(self, client, server, muted):
        try:
            while True:
                head = exactly(server, 5)
                message = head + exactly(server, struct.unpack("!i", head[1:])[0] - 4)
                if not muted.is_set():
                    client.sendall(message)
                elif head[:1] == b"Z":
                    break
        except OSError:
            pass
        close(client)
        close(server)

    def _hit(self):
        with self._lock:
            self.statements += 1
            if self.at and self.at <= self.statements < self.at + self.times:
                self.cuts += 1
                return True
            return False


def exactly(source, count):
    data = b""
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise OSError("closed")
        data += part
    return data


def close(one):
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
