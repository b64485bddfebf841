"""Finds what is left of a text in bytes and files, however it was written down; never repeats the text itself.

A text is looked for as UTF-8, as UTF-16 of either order, and as JSON writes it, once and once more inside a JSON
string. Compressed files are opened where Python can; what cannot be looked into is listed, not passed over.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

__all__ = [
    "LEAST_CHARACTERS",
    "Found",
    "Region",
    "Searched",
    "Standing",
    "all_forms",
    "forms_of",
    "pieces_of",
    "search_bytes",
    "search_files",
]

CHUNK_BYTES = 4 << 20
# A shorter text stands in any file by chance.
LEAST_CHARACTERS = 6
# A long text is divided among the pages of a file: it is looked for in pieces, of which each page holds one whole.
WHOLE_CHARACTERS, PIECE_CHARACTERS, PIECE_EVERY = 64, 48, 400

_PACKED: Mapping[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_SHUT = {
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"PK\x03\x04": "a zip archive",
}


class Standing(StrEnum):
    """What can be said of a region that was not simply read."""

    DESTROYED = "destroyed by key"
    NOT_PROVABLE = "not provable"


@dataclass(frozen=True, slots=True)
class Found:
    """A place where a text still stands.

    Attributes:
        where: File, or table and column. text: the name of the text (`subject`, `canary`, `fact 3`).
        form: How it is written there. times: how often. at: the first place in bytes; 0 in a table.
    """

    where: str
    text: str
    form: str
    times: int
    at: int = 0


@dataclass(frozen=True, slots=True)
class Region:
    """What could not simply be read: sealed, compressed, out of reach. `why` says what would settle it."""

    where: str
    standing: Standing
    why: str


@dataclass(frozen=True, slots=True)
class Searched:
    """What was looked through: files, their bytes (unpacked), what was found, and what could not be read."""

    files: int = 0
    size_bytes: int = 0
    found: tuple[Found, ...] = ()
    regions: tuple[Region, ...] = ()

    def __add__(self, other: Searched) -> Searched:
        return Searched(
            self.files + other.files,
            self.size_bytes + other.size_bytes,
            self.found + other.found,
            self.regions + other.regions,
        )


def forms_of(text: str) -> dict[bytes, str]:
    """Return the bytes that a text may stand as, each with the name of its form; equal ones once."""
    once = {"JSON": json.dumps(text)[1:-1], "JSON, not ASCII": json.dumps(text, ensure_ascii=False)[1:-1]}
    twice = {f"{name} in JSON": json.dumps(escaped)[1:-1] for name, escaped in once.items()}
    slashed = {f"{name}, slashes escaped": escaped.replace("/", r"\/") for name, escaped in once.items()}
    forms: dict[bytes, str] = {}
    for name, written in {"UTF-8": text, **once, **twice, **slashed}.items():
        data = written.encode("utf-8", "surrogatepass")
        forms.setdefault(data, name)
    upper = once["JSON"].encode()
    if b"\\u" in upper:
        forms.setdefault(_upper_digits(once["JSON"]).encode(), "JSON, capital digits")
    for written in {text, once["JSON"]}:
        # One needle for both orders would miss nothing of ASCII, but would name the wrong one.
        forms.setdefault(written.encode("utf-16-le", "surrogatepass"), "UTF-16LE")
        forms.setdefault(written.encode("utf-16-be", "surrogatepass"), "UTF-16BE")
    return forms


def pieces_of(text: str) -> list[str]:
    """Return what is looked for: the text, or pieces of a long one, its beginning and its end among them."""
    if len(text) <= WHOLE_CHARACTERS:
        return [text]
    last = len(text) - PIECE_CHARACTERS
    return [text[at : at + PIECE_CHARACTERS] for at in (*range(0, last, PIECE_EVERY), last)]


def all_forms(text: str) -> dict[bytes, str]:
    """Return everything that is looked for, each with the name of its form."""
    return {data: form for piece in pieces_of(text) for data, form in forms_of(piece).items()}


def search_bytes(data: bytes, texts: Mapping[str, str], where: str) -> list[Found]:
    """Return where any of the texts (by name) stands in the data."""
    return _Search(texts).one(where, iter((data,)))[1]


def search_files(
    paths: Iterable[Path], texts: Mapping[str, str], progress: Callable[[int], None] = lambda _: None
) -> Searched:
    """Look through files, and the files of folders; report each place, and each file that cannot be read whole.

    Args:
        texts: By name. progress: told how many bytes have been read since it was told last.
    """
    search = _Search(texts)
    searched = Searched()
    for path in _files(paths):
        searched += _file(search, path, progress)
    return searched


def _file(search: _Search, path: Path, progress: Callable[[int], None]) -> Searched:
    where = str(path)
    try:
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(0)
            size, found = search.one(where, _chunks(file, progress))
    except OSError as error:
        return Searched(regions=(Region(where, Standing.NOT_PROVABLE, f"cannot be read: {error.strerror or error}"),))
    searched = Searched(1, size, tuple(found))
    shut = next((why for magic, why in _SHUT.items() if head.startswith(magic)), None)
    if shut is not None:
        return searched + Searched(regions=(Region(where, Standing.NOT_PROVABLE, f"{shut}: unpack it and search"),))
    opener = next((opener for magic, opener in _PACKED.items() if head.startswith(magic)), None)
    if opener is None:
        return searched
    try:
        with opener(path) as unpacked:
            size, found = search.one(f"{where} (unpacked)", _chunks(unpacked, lambda _: None))
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        region = Region(where, Standing.NOT_PROVABLE, f"compressed, and cannot be unpacked: {error}")
        return searched + Searched(regions=(region,))
    return searched + Searched(0, size, tuple(found))


class _Search:
    """The texts in all their forms."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._needles = [
            (needle, name, form) for name, text in texts.items() for needle, form in all_forms(text).items()
        ]
        self._overlap = max((len(needle) for needle, _, _ in self._needles), default=1) - 1

    def one(self, where: str, chunks: Iterator[bytes]) -> tuple[int, list[Found]]:
        """Look through one thing that comes in pieces; return its size and what was found."""
        first: dict[int, int] = {}
        times: dict[int, int] = {}
        size, tail = 0, b""
        for chunk in chunks:
            data = tail + chunk
            start = size - len(tail)
            for i, (needle, _, _) in enumerate(self._needles):
                at = data.find(needle)
                while at >= 0:
                    # What ends inside the tail was counted with the piece before.
                    if at + len(needle) > len(tail):
                        times[i] = times.get(i, 0) + 1
                        first.setdefault(i, start + at)
                    at = data.find(needle, at + 1)
            size += len(chunk)
            tail = data[-self._overlap :] if self._overlap else b""
        found = [Found(where, self._needles[i][1], self._needles[i][2], times[i], at) for i, at in first.items()]
        return size, found


def _chunks(file: IO[bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        progress(len(chunk))
        yield chunk


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield each file once, those of folders by name; what is neither file nor folder is not looked at."""
    seen: set[Any] = set()
    for path in paths:
        for each in sorted(path.rglob("*")) if path.is_dir() else (path,):
            if each.is_dir() or (each.exists() and not each.is_file()):
                continue
            name = each.resolve()
            if name not in seen:
                seen.add(name)
                yield each


def _upper_digits(escaped: str) -> str:
    parts = escaped.split("\\u")
    return parts[0] + "".join("\\u" + part[:4].upper() + part[4:] for part in parts[1:])
