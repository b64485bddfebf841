"""The pieces of a model's stream, cut by the run's deadline: between them, code of others is at work."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

from interlock.core.errors import RunStopped
from interlock.supervisor.run import Run
from interlock.supervisor.stopping import TIME_IS_UP

__all__ = ["in_time"]


async def in_time(run: Run, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield the pieces as long as the run has time.

    Raises:
        RunStopped: It has none left; the run is stopped.
    """
    scope = run.scope
    while True:
        left_s = scope.deadline_s - scope.clock.monotonic()
        try:
            async with asyncio.timeout(None if math.isinf(left_s) else max(left_s, 0.0)) as cut:
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            if not cut.expired():
                raise
            run.stop(TIME_IS_UP)
            raise RunStopped(TIME_IS_UP.reason, TIME_IS_UP.message) from None
        yield piece
