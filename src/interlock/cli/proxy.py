"""Verb `chaos proxy`: faults between your clients and a real server; one JSON line for each that was injected."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import Annotated, Any

import orjson
import typer

from interlock.chaos.framing import FRAMINGS, FramingName
from interlock.chaos.proxy import FaultProxy, Injected
from interlock.chaos.spoken import spoken_wire_fault
from interlock.cli.output import note
from interlock.core.errors import ConfigError

__all__ = ["proxy"]


def proxy(
    to: Annotated[str, typer.Option(metavar="HOST:PORT", help="The real server; or unix:PATH; or https://HOST.")],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where clients connect; port 0 takes a free one; or unix:PATH.")
    ] = "127.0.0.1:0",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAULT", help="What goes wrong: 'KIND key=value …', e.g. 'answer_lost calls=[3]'; repeat."
        ),
    ] = None,
    speaks: Annotated[
        str, typer.Option(metavar="|".join(FRAMINGS), help="What the server speaks; tcp is anything.")
    ] = "tcp",
    seed: Annotated[int, typer.Option(help="Of all chance.")] = 0,
    seconds: Annotated[
        float | None, typer.Option("--for", min=0.001, max=30 * 86_400, metavar="SECONDS", help="End after so long.")
    ] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Begin only if the server can be reached.")] = True,
) -> None:
    """Forward to a real server, and inject faults on the way; ends with Ctrl-C, SIGTERM or `--for`.

    Standard output is JSON lines: `listening` with the address, `injected` for each fault, `failed` for a connection
    that the server did not take, `ended` with the counts.
    """
    name: FramingName | None = next((each for each in FRAMINGS if each == speaks), None)
    if name is None:
        raise ConfigError(f"--speaks {speaks}: write one of {', '.join(FRAMINGS)}")
    faults = [spoken_wire_fault(text) for text in fault or ()]
    if not faults:
        note("warning: no --fault: everything passes")
    told = _Told()
    served = FaultProxy(to, faults, seed=seed, listen=listen, framing=name, told=told.injected, failed=told.failed)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(served, told, to, speaks, seed, faults, seconds, check))


class _Told:
    """Says what happens, a line each; when nobody listens any more, it is over."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.deaf = False

    def line(self, event: str, **facts: Any) -> None:
        if self.deaf:
            return
        try:
            sys.stdout.write(orjson.dumps({"event": event, **facts}).decode() + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            self.deaf = True
            # What is still in the buffer must not fail once more at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.over.set()

    def injected(self, injected: Injected) -> None:
        self.line("injected", **injected._replace(at_s=round(injected.at_s, 6))._asdict())

    def failed(self, why: str) -> None:
        self.line("failed", why=why)


async def _serve(
    served: FaultProxy,
    told: _Told,
    to: str,
    speaks: str,
    seed: int,
    faults: list[Any],
    seconds: float | None,
    check: bool,
) -> None:
    if check:
        await served.check()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.over.set)
    async with served:
        shown = [each.as_json() for each in faults]
        told.line("listening", listen=served.address, to=to, speaks=speaks, seed=seed, faults=shown)
        note(f"{served.address} -> {to}: Ctrl-C ends it")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await told.over.wait()
    told.line("ended", connections=served.connections, requests=served.requests, injected=dict(served.injected))
