"""The fault proxy before a PostgreSQL server, on a socket and a thread of its own; it cuts at the n-th statement."""

from __future__ import annotations

import tempfile
from pathlib import Path

from interlock.chaos.proxy import FaultProxy
from interlock.chaos.wire import WireFault, WireKind
from interlock.stores.pg_thread import LoopThread

SOCKET = ".s.PGSQL.5432"
PATIENCE_S = 30.0


class Cutter:
    """Listens on a socket of its own; `folder` is what an URL names as its host.

    Attributes:
        statements: How many have come from clients since `arm`.
        cuts: How many connections were cut.
    """

    def __init__(self, server):
        self._folder = tempfile.TemporaryDirectory(prefix="il-cut-")
        self.folder = Path(self._folder.name)
        # A store waits for its server while it opens and closes: the proxy must not live in the same loop.
        self._thread = LoopThread("cutter")
        listen = f"unix:{self.folder / SOCKET}"
        self._proxy = FaultProxy(f"unix:{server.folder / SOCKET}", listen=listen, framing="postgres")
        self._wait(self._proxy.start())
        self._before = 0

    def arm(self, at, *, after=False, times=1):
        """Cut at the `at`-th statement from now (0: never); `after` it was carried out, but before it was answered."""
        kind = WireKind.ANSWER_LOST if after else WireKind.RESET
        faults = [WireFault(kind, calls=tuple(range(at, at + times)))] if at else []
        self._wait(self._proxy.arm(faults))
        self._before = self._proxy.requests

    @property
    def statements(self):
        return self._proxy.requests - self._before

    @property
    def cuts(self):
        return sum(self._proxy.injected.values())

    def cut_all(self):
        """Cut what is connected."""
        self._wait(self._proxy.cut())

    def close(self):
        self._wait(self._proxy.close())
        self._thread.stop(PATIENCE_S)
        self._folder.cleanup()

    def _wait(self, work):
        return self._thread.wait_for(work, PATIENCE_S)
