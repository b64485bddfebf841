"""A run's time: when it is up the run stops, and the model turns under way are cut off.

One timer a run, none a turn: a cancelled timer stays with the event loop until its hour, and turns are many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from interlock.core.calls import Stop
from interlock.supervisor.stopping import TIME_IS_UP

__all__ = ["Cut", "Deadline"]


class Cut:
    """What cancels the task of one model turn when its time is up; made by the task itself.

    Args:
        after_s: Seconds from now; None: whoever made it calls `fire`.
    """

    __slots__ = ("_before", "_fired", "_of", "_task", "_timer")

    def __init__(self, after_s: float | None = None, of: Deadline | None = None) -> None:
        task = self._task = asyncio.current_task()
        self._before = 0 if task is None else task.cancelling()
        self._fired = False
        self._of = of
        self._timer: asyncio.TimerHandle | None = None
        if after_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, after_s), self.fire)

    def fire(self) -> None:
        """Cut the turn."""
        if self._task is not None:
            self._fired = True
            self._task.cancel()

    def lift(self, error: BaseException | None) -> bool:
        """Take the end of the turn in; return whether this has cut it, and nobody else wants the task cancelled."""
        if self._of is not None:
            self._of.cuts.discard(self)
        elif self._timer is not None:
            self._timer.cancel()
        if not self._fired or self._task is None:
            return False
        return self._task.uncancel() <= self._before and isinstance(error, asyncio.CancelledError)


class Deadline:
    """The timer of one run.

    Args:
        left_s: Seconds until its time is up.
        stop: Stops the run.

    Attributes:
        cuts: Of the turns under way.
    """

    __slots__ = ("_stop", "_timer", "cuts")

    def __init__(self, loop: asyncio.AbstractEventLoop, left_s: float, stop: Callable[[Stop], None]) -> None:
        self.cuts: set[Cut] = set()
        self._stop = stop
        self._timer = loop.call_later(max(0.0, left_s), self._over)

    def cut(self) -> Cut:
        """Return what will cut this task when the time is up."""
        cut = Cut(of=self)
        self.cuts.add(cut)
        return cut

    def cancel(self) -> None:
        """Let the run have all the time it wants: it has ended."""
        self._timer.cancel()

    def _over(self) -> None:
        self._stop(TIME_IS_UP)
        for cut in list(self.cuts):
            cut.fire()
