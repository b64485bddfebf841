"""Which values are validated outputs of a run, and of which tool.

An output is known by the hash of its canonical JSON, taken when it came: what an agent does to the value afterwards
makes it another one. Nothing else of it is held, so that a run pays some bytes for an output however large.
"""

from __future__ import annotations

import hashlib
from typing import Any

from interlock.core.calls import ToolSpec
from interlock.core.canonical import NotCanonical, canonical_json

__all__ = ["KNOWN", "Validated"]

# Outputs of one run that are known; the oldest go first, some at a time.
KNOWN = 1_000
_SPARE = 100
_SIZE = 16


class Validated:
    """The validated outputs of one run and its children."""

    __slots__ = ("_digests", "_tools")

    def __init__(self) -> None:
        self._digests = bytearray()
        self._tools: list[ToolSpec] = []

    def note(self, tool: ToolSpec, data: bytes) -> None:
        """Take in an output, as its canonical JSON."""
        self._digests += _digest(data)
        self._tools.append(tool)
        if len(self._tools) >= KNOWN + _SPARE:
            del self._digests[: _SIZE * _SPARE]
            del self._tools[:_SPARE]

    def find(self, value: Any) -> tuple[str, bytes] | None:
        """Return the tool of which `value` is an output as it came, and its canonical JSON; None if it is of none.

        Raises:
            NotCanonical: It cannot be written as JSON by any tool of this run.
        """
        try:
            data, refused = canonical_json(value), None
        except NotCanonical as error:
            data, refused = b"", error
        for tool in () if refused else self._tools_of(data):
            return tool.name, data
        # A typed output is written as its type writes it, which may be another way than anything else's.
        for tool in set(self._tools):
            written = _written(tool, value)
            if tool in self._tools_of(written):
                return tool.name, written
        if refused is not None:
            raise refused
        return None

    def _tools_of(self, data: bytes) -> list[ToolSpec]:
        wanted = _digest(data)
        return [tool for i, tool in enumerate(self._tools) if self._digests[i * _SIZE : (i + 1) * _SIZE] == wanted][
            ::-1
        ]


def _written(tool: ToolSpec, value: Any) -> bytes:
    """Return `value` as this tool's type writes it, or nothing where it is of no such type."""
    try:
        return b"" if tool.output is None else tool.output.dump(value)
    except Exception:  # whatever a type's own serializer raises of what it does not know
        return b""


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_SIZE).digest()
