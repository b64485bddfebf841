"""Files of recorded runs: found in folders, recognised by their first record, streamed, gzip or plain.

In a folder that holds one data set in two forms, the normalised one is read (it has labels, costs and times),
else the raw records; anywhere else every JSON file is looked at. A file that no reader knows is named.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from interlock.forensics.formats import Format, format_of
from interlock.forensics.json_records import json_records
from interlock.forensics.traces import Broken, RecordedRun

__all__ = ["TraceFile", "trace_files"]

_ONE_SET_IN_TWO_FORMS = ("normalized.jsonl.gz", "records.jsonl.gz")
_ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_GZIP_MAGIC = b"\x1f\x8b"
# A file whose first records are all broken is not worth a longer look.
_RECORDS_LOOKED_AT = 5


@dataclass(frozen=True, slots=True)
class TraceFile:
    """One file of recorded runs; `dataset` names runs that do not say where they belong."""

    path: Path
    dataset: str

    def runs(self) -> Iterator[RecordedRun | Broken]:
        """Yield the runs in this file, and what of it is broken."""
        try:
            known = self.format()
            if known is None:
                yield Broken(0, "no reader knows this format")
                return
            with _opened(self.path) as lines:
                yield from known.read(lines, self.dataset)
        except OSError as error:
            yield Broken(0, f"cannot be opened: {error.strerror or error}")

    def format_name(self) -> str:
        """Return the name of the file's format; "" where no reader knows it or it cannot be opened."""
        with contextlib.suppress(OSError):
            known = self.format()
            return "" if known is None else known.name
        return ""

    def format(self) -> Format | None:
        """Return the format of the first record that any reader knows, or None.

        Raises:
            OSError: The file cannot be opened.
        """
        with _opened(self.path) as lines:
            for item in itertools.islice(json_records(lines), _RECORDS_LOOKED_AT):
                found = None if isinstance(item, Broken) else format_of(item[1])
                if found is not None:
                    return found
        return None


def trace_files(paths: Iterable[str | Path]) -> Iterator[TraceFile]:
    """Yield the files of recorded runs under these paths, in a stable order.

    Raises:
        FileNotFoundError: One of the paths does not exist.
    """
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        if path.is_dir():
            yield from _in_folder(path)
        else:
            yield TraceFile(path, _dataset(path))


def _in_folder(folder: Path) -> Iterator[TraceFile]:
    entries = sorted(folder.iterdir())
    files = [e for e in entries if e.is_file() and e.name.endswith(_ENDINGS)]
    whole_sets = [f for name in _ONE_SET_IN_TWO_FORMS for f in files if f.name == name]
    for file in whole_sets[:1] or files:
        yield TraceFile(file, _dataset(file))
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from _in_folder(entry)


def _dataset(file: Path) -> str:
    if file.name in _ONE_SET_IN_TWO_FORMS:
        return file.absolute().parent.name
    return file.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".json")


def _opened(path: Path) -> gzip.GzipFile | BufferedReader:
    with path.open("rb") as file:
        magic = file.read(len(_GZIP_MAGIC))
    return gzip.open(path, "rb") if magic == _GZIP_MAGIC else path.open("rb")
