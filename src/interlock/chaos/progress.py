"""Progress on standard error: bars on a terminal, a line a side elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Advance", "show_progress"]

Advance = Callable[[], None]


@contextmanager
def show_progress(side: str, runs: int, *, wanted: bool) -> Iterator[Advance]:
    """Show how many of `runs` have ended; yields what to call when one has."""
    if not wanted:
        yield lambda: None
    elif sys.stderr.isatty():
        # rich takes a tenth of a second to import, and only a terminal needs it.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TextColumn("runs"))
        with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bars:
            task = bars.add_task(side, total=runs)
            yield lambda: bars.advance(task)
    else:
        sys.stderr.write(f"{side}: {runs} runs ...\n")
        yield lambda: None
        sys.stderr.write(f"{side}: done\n")
