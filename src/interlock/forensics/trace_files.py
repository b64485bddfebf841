"""Files of recorded runs: found in folders, recognised by what is in them, streamed, gzip or plain.

In a folder that holds one data set in two forms, one of them is read: the normalised one (it has labels, costs
and times) for driving and counting, the raw one (it has what was said) for judging. Anywhere else every file of
traces is looked at. A file that no reader knows is named.
"""

from __future__ import annotations

import gzip
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from interlock.core.errors import ConfigError, StoreUnavailable
from interlock.forensics.formats import Format, format_of, otlp_proto
from interlock.forensics.json_records import json_records
from interlock.forensics.split import pieces
from interlock.forensics.store_runs import runs_of_store
from interlock.forensics.traces import Broken, RecordedRun

__all__ = ["Prefer", "TraceFile", "Watch", "trace_files"]

Prefer = Literal["normalized", "records"]
Watch = Callable[[int], None]

_FORMS = {
    "normalized": ("normalized.jsonl.gz", "records.jsonl.gz"),
    "records": ("records.jsonl.gz", "normalized.jsonl.gz"),
}
_ENDINGS = (
    ".json",
    ".jsonl",
    ".json.gz",
    ".jsonl.gz",
    ".ndjson",
    ".traj",
    ".traj.gz",
    ".pb",
    ".otlp",
    ".pb.gz",
    ".db",
    ".log",
)
_GZIP_MAGIC = b"\x1f\x8b"
_SQLITE_MAGIC = b"SQLite format 3\x00"
_HEAD = 64
_BUFFER = 1 << 18
# A file whose first records are all broken is not worth a longer look.
_RECORDS_LOOKED_AT = 5


@dataclass(frozen=True, slots=True)
class TraceFile:
    """One file of recorded runs; `dataset` names runs that do not say where they belong."""

    path: Path
    dataset: str
    _known: dict[str, Format | None] = field(default_factory=dict, compare=False, repr=False)

    def runs(self, watch: Watch = lambda _read: None) -> Iterator[RecordedRun | Broken]:
        """Yield the runs in this file, and what of it is broken; `watch` is told how many bytes have been read."""
        try:
            known = self.format()
            if known is None:
                empty = self.path.stat().st_size == 0
                yield Broken(0, "the file is empty" if empty else "no reader knows this format")
            elif known.name == "store":
                yield from runs_of_store(f"sqlite:///{self.path}", self.dataset)
            else:
                with _opened(self.path, watch) as file:
                    if known.name == "otlp_protobuf":
                        yield from otlp_proto.read(file, self.dataset)
                    else:
                        yield from known.read(pieces(file), self.dataset)
        except OSError as error:
            yield Broken(0, f"cannot be opened: {error.strerror or error}")
        except (ConfigError, StoreUnavailable) as error:
            yield Broken(0, str(error))

    def format_name(self) -> str:
        """Return the name of the file's format; "" where no reader knows it or it cannot be opened."""
        with suppress(OSError):
            known = self.format()
            return "" if known is None else known.name
        return ""

    def format(self) -> Format | None:
        """Return the format of the first record that any reader knows, or None.

        Raises:
            OSError: The file cannot be opened.
        """
        if "found" not in self._known:
            self._known["found"] = self._detected()
        return self._known["found"]

    def _detected(self) -> Format | None:
        with _opened(self.path) as file:
            head = _head(file)
        if head.startswith(_SQLITE_MAGIC):
            return Format("store", _never, _nothing)
        if head[:1] not in {b"{", b"["} and otlp_proto.looks_like(head):
            return Format("otlp_protobuf", _never, _nothing)
        with _opened(self.path) as file:
            for item in itertools.islice(json_records(pieces(file)), _RECORDS_LOOKED_AT):
                found = None if isinstance(item, Broken) else format_of(item[1])
                if found is not None:
                    return found
        return None


def trace_files(paths: Iterable[str | Path], *, prefer: Prefer = "normalized") -> Iterator[TraceFile]:
    """Yield the files of recorded runs under these paths, in a stable order.

    Args:
        paths: Files and folders.
        prefer: Which form of a data set that is there in two forms.

    Raises:
        FileNotFoundError: One of the paths does not exist.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        if path.is_dir():
            yield from _in_folder(path, prefer)
        else:
            yield TraceFile(path, _dataset(path))


def _in_folder(folder: Path, prefer: Prefer) -> Iterator[TraceFile]:
    entries = sorted(folder.iterdir())
    files = [e for e in entries if e.is_file() and e.name.endswith(_ENDINGS)]
    whole_sets = [f for name in _FORMS[prefer] for f in files if f.name == name]
    for file in whole_sets[:1] or files:
        yield TraceFile(file, _dataset(file))
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from _in_folder(entry, prefer)


def _dataset(file: Path) -> str:
    if file.name in _FORMS["records"]:
        return file.absolute().parent.name
    name = file.name.removesuffix(".gz")
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name


Opened = io.BufferedIOBase


class _Counted(io.RawIOBase):
    """A file that tells how much of it has been read."""

    def __init__(self, file: io.FileIO, watch: Watch) -> None:
        self._file = file
        self._watch = watch
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._file.readinto(buffer) or 0
        self._read += size
        self._watch(self._read)
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def _opened(path: Path, watch: Watch = lambda _read: None) -> Iterator[Opened]:
    # Opened here: an object that could not be made would be closed all the same, by the collector.
    with io.BufferedReader(_Counted(path.open("rb", buffering=0), watch), _BUFFER) as file:
        if file.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)] == _GZIP_MAGIC:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
        else:
            yield file


def _head(file: Opened) -> bytes:
    with suppress(OSError, EOFError):
        return file.read(_HEAD)
    return b""


def _never(record: Any) -> bool:
    del record
    return False


def _nothing(lines: Iterable[bytes], dataset: str) -> Iterator[RecordedRun | Broken]:
    del lines, dataset
    yield from ()
