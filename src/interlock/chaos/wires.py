"""Fault proxies before the servers of a suite: agents find them in the environment, and each trial arms them.

They live on a thread of their own, so that an agent that blocks its event loop is still served.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, TypeVar

from interlock.chaos.proxy import FaultProxy, Injected
from interlock.chaos.suite import Suite, Task
from interlock.chaos.wire import Server
from interlock.core.errors import ConfigError

__all__ = ["on_the_wire", "wired"]

T = TypeVar("T")
PATIENCE_S = 30.0


class _Wires:
    """One proxy for each server, and the thread that they live on."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self.servers = servers
        self.proxies: dict[str, FaultProxy] = {}
        self.told: Callable[[str, Injected], None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="interlock-wires", daemon=True)

    def start(self) -> None:
        self._thread.start()
        for name, server in self.servers.items():
            proxy = FaultProxy(server.to, framing=server.speaks, told=self._teller(name))
            try:
                self.wait(proxy.check())
                self.wait(proxy.start())
            except ConfigError as error:
                raise ConfigError(f"servers.{name}: {error}") from None
            self.proxies[name] = proxy

    def _teller(self, name: str) -> Callable[[Injected], None]:
        def tell(injected: Injected) -> None:
            if self.told is not None:
                self.told(name, injected)

        return tell

    def arm(self, task: Task, seed: int) -> None:
        """Arm each proxy with the faults of this task; those of another server have nothing."""
        for name, proxy in self.proxies.items():
            mine = [fault for fault in task.wire if (fault.server or next(iter(self.servers))) == name]
            self.wait(proxy.arm(mine, seed=seed))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def stop(self) -> None:
        for proxy in self.proxies.values():
            self.wait(proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()


_wires: ContextVar[_Wires | None] = ContextVar("interlock_wires", default=None)


@contextlib.contextmanager
def wired(suite: Suite) -> Iterator[None]:
    """Place a proxy before each server of the suite while the block lasts; their addresses are in the environment.

    Raises:
        ConfigError: A server cannot be reached, or an address cannot be read.
    """
    if not suite.servers:
        yield
        return
    wires = _Wires(suite.servers)
    kept = {server.env: os.environ.get(server.env) for server in suite.servers.values()}
    token = _wires.set(wires)
    try:
        wires.start()
        for name, server in suite.servers.items():
            os.environ[server.env] = server.value(wires.proxies[name].address)
        yield
    finally:
        _wires.reset(token)
        wires.stop()
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def on_the_wire(task: Task, seed: int, told: Callable[[str, Injected], None]) -> Iterator[None]:
    """Have the wire's faults of this task while the block lasts.

    Args:
        told: Called with the server and each fault that is injected, on another thread.
    """
    wires = _wires.get()
    if wires is None:
        if task.wire:
            raise ConfigError(f"task {task.name}: wire: no proxy stands before its server here")
        yield
        return
    wires.arm(task, seed)
    wires.told = told
    try:
        yield
    finally:
        wires.told = None
        wires.arm(replace(task, wire=()), seed)  # the probe may look through it
