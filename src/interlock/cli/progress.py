"""How far reading has come, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from interlock.cli.output import note

__all__ = ["reading"]

_SAY_EVERY_BYTES = 256 << 20


@contextlib.contextmanager
def reading(paths: Iterable[Path]) -> Iterator[Callable[[int], None]]:
    """Yield what is to be told how many bytes of these files have been read."""
    total = sum(_size(path) for path in paths)
    if not sys.stderr.isatty():
        yield _Lines(total)
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal pays for it
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn  # noqa: PLC0415

    columns = ("reading", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=total)
        yield lambda read: bar.update(task, completed=read)


class _Lines:
    def __init__(self, total: int) -> None:
        self._total = total
        self._next = _SAY_EVERY_BYTES

    def __call__(self, read: int) -> None:
        if read >= self._next:
            self._next = read + _SAY_EVERY_BYTES
            note(f"read {read >> 20} of {self._total >> 20} MiB")


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size if path.exists() else 0
