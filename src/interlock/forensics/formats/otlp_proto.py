"""OpenTelemetry spans as protobuf: `TracesData` or export requests, bare or each behind its length.

Only the outermost message is walked by hand, so that one resource's spans are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from interlock.core.errors import ConfigError
from interlock.forensics.formats.genai import span_of
from interlock.forensics.formats.spans import Span, runs_of_spans
from interlock.forensics.traces import Broken, RecordedRun

__all__ = ["looks_like", "read"]

# Field 1 of the outermost message (resource_spans), with a length.
_TAG = 0x0A
_MOST_BYTES = 64 << 20
_FAILED = 2


class Binary(Protocol):
    """A binary file."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes."""
        ...


def looks_like(head: bytes) -> bool:
    """Whether a file that begins with these bytes holds OTLP protobuf."""
    for begin in (0, 4, *((size[1],) if (size := _varint(head, 0)) and head[:1] != b"\n" else ())):
        inner = _varint(head, begin + 1) if head[begin : begin + 1] == b"\x0a" else None
        # A resource (1) or scope spans (2) must stand right inside.
        if inner is not None and inner[0] and head[inner[1] : inner[1] + 1] in {b"\x0a", b"\x12"}:
            return True
    return False


def read(file: Binary, dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the run of each trace, and what is broken.

    Raises:
        ConfigError: The extra `otlp` is not installed.
    """
    try:
        from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigError("OTLP protobuf needs the extra: pip install 'interlock[otlp]'") from None
    return runs_of_spans(_spans(file, ResourceSpans), dataset)


def _spans(file: Binary, resource_spans: Any) -> Iterator[Span | Broken]:
    position = 0
    try:
        for data in _messages(file):
            position += 1
            try:
                resource = resource_spans.FromString(data)
            except Exception as error:
                yield Broken(position, f"not OTLP: {error}")
                continue
            for scope in resource.scope_spans:
                for span in scope.spans:
                    yield _span(span)
    except (OSError, EOFError, ValueError) as error:
        yield Broken(position + 1, f"the file cannot be read further: {error}")


def _messages(file: Binary) -> Iterator[bytes]:
    """Yield the encoded resource spans, whether requests stand bare, behind a varint or behind four bytes."""
    first = file.read(64)
    reader = _Reader(file, first)
    bare = first[:1] == b"\x0a" and _stands_bare(first)
    four = not bare and len(first) > 4 and first[4:5] == b"\x0a"
    while reader.left():
        if bare:
            yield from _field(reader)
            continue
        size = int.from_bytes(reader.take(4), "big") if four else reader.varint()
        inner = _Reader(None, reader.take(size))
        while inner.left():
            yield from _field(inner)


def _stands_bare(head: bytes) -> bool:
    inner = _varint(head, 1)
    return inner is not None and head[inner[1] : inner[1] + 1] in {b"\x0a", b"\x12"}


def _field(reader: _Reader) -> Iterator[bytes]:
    tag = reader.varint()
    if tag != _TAG:
        raise ValueError(f"field {tag >> 3} where spans of a resource were expected")
    yield reader.take(reader.varint())


class _Reader:
    """Takes bytes from what is at hand, then from the file."""

    def __init__(self, file: Binary | None, data: bytes) -> None:
        self._file = file
        self._data = data
        self._at = 0

    def left(self) -> bool:
        return self._at < len(self._data) or self._more(1)

    def take(self, size: int) -> bytes:
        if size > _MOST_BYTES:
            raise ValueError(f"a message of {size} bytes")
        if self._at + size > len(self._data) and not self._more(size):
            raise EOFError("it ends in the middle of a message")
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("no length where one was expected")

    def _more(self, size: int) -> bool:
        self._data = self._data[self._at :]
        self._at = 0
        if self._file is not None:
            while len(self._data) < size and (chunk := self._file.read(max(size - len(self._data), 1 << 18))):
                self._data += chunk
        return len(self._data) >= size


def _varint(data: bytes, at: int) -> tuple[int, int] | None:
    value = shift = 0
    for place in range(at, min(at + 6, len(data))):
        value |= (data[place] & 0x7F) << shift
        if data[place] < 0x80:
            return value, place + 1
        shift += 7
    return None


def _span(span: Any) -> Span:
    attributes = {each.key: _value(each.value) for each in span.attributes}
    for event in span.events:
        if event.name == "exception":
            for each in event.attributes:
                attributes.setdefault(each.key, _value(each.value))
    return span_of(
        attributes,
        trace=str(attributes.get("interlock.run_id") or span.trace_id.hex()),
        name=span.name,
        start_s=span.start_time_unix_nano / 1e9 or None,
        end_s=span.end_time_unix_nano / 1e9 or None,
        failed=span.status.code == _FAILED,
        error=span.status.message,
    )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {each.key: _value(each.value) for each in value.kvlist_value.values}
    return None if kind is None else getattr(value, kind)
