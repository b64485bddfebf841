"""Whatever shape a file has, its records come out one by one, and memory does not grow with it."""

from __future__ import annotations

import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.forensics import grouping, split
from interlock.forensics.grouping import gathered
from interlock.forensics.json_records import json_records
from interlock.forensics.split import TooLong, pieces
from interlock.forensics.traces import Broken


class Trickle(io.BytesIO):
    """A file that gives a few bytes at a time."""

    def __init__(self, data, size):
        super().__init__(data)
        self._size = size

    def read(self, size=-1):
        return super().read(self._size if size < 0 else min(size, self._size))


def cut(data, size=1 << 20):
    return [bytes(piece) for piece in pieces(Trickle(data, size))]


def text(value, **how):
    return json.dumps(value, **how).encode()


RECORDS = [{"n": i, "text": 'quo"te \\ {[ü\n' * i, "list": [{"x": [1, 2]}, "]"]} for i in range(12)]
CHAT = [{"role": "user", "content": "}]"}, {"role": "assistant", "content": '[{"'}]
SHAPES = {
    "lines": b"\n".join(map(text, RECORDS)),
    "lines with gaps and CRLF": b"\r\n\n".join(map(text, RECORDS)) + b"\r\n",
    "an array": text(RECORDS),
    "an array over lines": text(RECORDS, indent=1),
    "an object around an array": text({"version": [1], "traces": RECORDS, "more": {"data": [3]}}),
    "an object around an array, over lines": text({"data": RECORDS}, indent=2),
    "documents over lines, one behind the other": b"\n".join(text(r, indent=1) for r in RECORDS),
    "a byte order mark": b"\xef\xbb\xbf" + b"\n".join(map(text, RECORDS)),
}


@pytest.mark.parametrize("size", [1, 3, 7, 100, 1 << 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_records_come_out_of_every_shape(shape, size):
    assert [json.loads(piece) for piece in cut(SHAPES[shape], size)] == RECORDS


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_the_messages_of_one_conversation_are_one_record(size):
    assert [json.loads(p) for p in cut(text(CHAT), size)] == [CHAT]
    assert [json.loads(p) for p in cut(text(CHAT, indent=1), size)] == [CHAT]
    assert [json.loads(p) for p in cut(text([CHAT, CHAT]), size)] == [CHAT, CHAT]
    assert [json.loads(p) for p in cut(text(CHAT) + b"\n" + text(CHAT), size)] == [CHAT, CHAT]


def test_spans_of_a_resource_stay_inside_of_it():
    document = {"resourceSpans": [{"a": 1}, {"b": 2}]}
    assert [json.loads(p) for p in cut(text(document, indent=1))] == [
        {"resourceSpans": [{"a": 1}]},
        {"resourceSpans": [{"b": 2}]},
    ]


@given(st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=3), max_size=6), st.integers(1, 9))
def test_any_array_is_cut_into_its_elements(values, size):
    records = [value | {"k": 1} for value in values]
    if records and any(key in records[0] for key in ("role", "type")):
        return
    assert [json.loads(p) for p in cut(text(records, indent=1, ensure_ascii=False), size)] == records or not records


def test_a_record_that_is_too_long_is_named_and_the_next_is_read(monkeypatch):
    monkeypatch.setattr(split, "MAX_RECORD_BYTES", 1_000)
    monkeypatch.setattr(split, "_CHUNK", 100)
    huge = {"n": 1, "text": "x" * 5_000}
    for data in (b"\n".join(map(text, [RECORDS[1], huge, RECORDS[2]])), text([RECORDS[1], huge, RECORDS[2]])):
        first, broken, last = json_records(pieces(Trickle(data, 100)))
        assert first[1] == RECORDS[1]
        assert isinstance(broken, Broken)
        assert "a record of more than" in broken.why
        assert last[1] == RECORDS[2]


def test_what_is_cut_off_at_the_end_is_one_broken_record():
    whole, broken = json_records(pieces(Trickle(b'[{"n": 1}, {"n": [2, ', 5)))
    assert whole == (1, {"n": 1})
    assert isinstance(broken, Broken)


def test_one_array_on_one_line_is_cut_in_constant_memory():
    element = text({"n": 1, "text": "x" * 2_000})

    class Endless:
        """An array of 32 MiB that nobody holds."""

        def __init__(self):
            self.left = 16_000
            self.begun = False

        def read(self, size):
            if not self.left:
                return b""
            many = min(self.left, max(1, size // len(element)))
            self.left -= many
            begin = b"," if self.begun else b"["
            self.begun = True
            return begin + b",".join([element] * many) + (b"" if self.left else b"]")

    tracemalloc.start()
    count = sum(1 for _ in pieces(Endless()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 16_000
    assert peak < 8 << 20


def test_what_belongs_together_is_gathered_from_memory_or_from_files(monkeypatch):
    parts = [(f"k{i % 7}", {"n": i}) for i in range(200)]
    expected = {f"k{k}": [{"n": i} for i in range(k, 200, 7)] for k in range(7)}
    held = list(gathered(parts))
    assert [key for key, _ in held] == [f"k{k}" for k in range(7)]
    assert dict(held) == expected
    monkeypatch.setattr(grouping, "HELD_BYTES", 300)
    assert dict(gathered(parts)) == expected
    assert isinstance(TooLong(b"x"), bytes)
