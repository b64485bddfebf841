"""Gathers what belongs together and lies scattered through a file, in memory that does not grow with the file.

Parts are kept as JSON. Past `HELD_BYTES` they are dealt into temporary files by their key, and each of those is
gathered by itself: a gigabyte of spans costs what a sixty-fourth of it does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

import orjson

__all__ = ["HELD_BYTES", "gathered"]

HELD_BYTES = 24 << 20
_FILES = 64


def gathered(parts: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield each key with its parts, in the order in which keys, and parts of a key, appeared.

    Where the parts did not fit into memory, keys are in that order only within each of the temporary files.
    """
    held: dict[str, list[bytes]] = {}
    size = 0
    files: list[IO[bytes]] = []
    try:
        for key, part in parts:
            data = orjson.dumps(part, default=str, option=orjson.OPT_NON_STR_KEYS)
            if files:
                _deal(files, key, data)
                continue
            held.setdefault(key, []).append(data)
            size += len(data) + len(key)
            if size > HELD_BYTES:
                files = [tempfile.TemporaryFile() for _ in range(_FILES)]  # noqa: SIM115 - closed below
                for each, kept in held.items():
                    for one in kept:
                        _deal(files, each, one)
                held = {}
        for key, kept in held.items():
            yield key, [orjson.loads(one) for one in kept]
        for file in files:
            file.seek(0)
            for key, kept in _of_one_file(file).items():
                yield key, [orjson.loads(one) for one in kept]
    finally:
        for file in files:
            file.close()


def _deal(files: list[IO[bytes]], key: str, data: bytes) -> None:
    name = key.encode("utf-8", "surrogatepass")
    file = files[hash(name) % len(files)]
    file.write(len(name).to_bytes(4, "big") + len(data).to_bytes(4, "big") + name + data)


def _of_one_file(file: IO[bytes]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    while len(head := file.read(8)) == 8:
        name = file.read(int.from_bytes(head[:4], "big")).decode("utf-8", "surrogatepass")
        found.setdefault(name, []).append(file.read(int.from_bytes(head[4:], "big")))
    return found
