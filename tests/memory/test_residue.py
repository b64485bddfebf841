"""The search for what is left: every form, every place, across the borders of pieces, and nothing that is not there."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.memory import residue
from interlock.memory.residue import Standing, forms_of, pieces_of, search_bytes, search_files

TEXT = 'Zoë said: "a/b" — 100 %\n'
PLAIN = "marie.curie"


@pytest.mark.parametrize(
    ("written", "form"),
    [
        (TEXT.encode(), "UTF-8"),
        (TEXT.encode("utf-16-le"), "UTF-16LE"),
        (TEXT.encode("utf-16-be"), "UTF-16BE"),
        (json.dumps(TEXT).encode(), "JSON"),
        (json.dumps(TEXT, ensure_ascii=False).encode(), "JSON, not ASCII"),
        (json.dumps(json.dumps(TEXT)).encode(), "JSON in JSON"),
        (json.dumps(json.dumps(TEXT, ensure_ascii=False)).encode(), "JSON, not ASCII in JSON"),
        (json.dumps(TEXT).replace("/", r"\/").encode(), "JSON, slashes escaped"),
        (json.dumps(TEXT).replace("\\u00eb", "\\u00EB").replace("\\u2014", "\\u2014").encode(), "JSON, capital digits"),
        (json.dumps(TEXT).encode("utf-16-le"), "UTF-16LE"),
    ],
)
def test_each_form_is_found_where_it_stands(written, form):
    every = search_bytes(b"\x00before" + written + b"after", {"text": TEXT}, "here")
    # Of plain letters the two orders of UTF-16 overlap, one byte apart.
    (found,) = [one for one in every if one.form == form]
    assert (found.text, found.where, found.times) == ("text", "here", 1)
    assert found.at in {7, 8, 9, 10}
    assert len(every) <= 2


def test_what_is_not_there_is_not_found():
    assert search_bytes(b"marie.curi", {"text": PLAIN}, "here") == []
    assert search_bytes(b"", {"text": PLAIN}, "here") == []
    assert search_bytes(PLAIN.encode(), {}, "here") == []


def test_plain_text_has_few_forms():
    assert set(forms_of(PLAIN).values()) == {"UTF-8", "UTF-16LE", "UTF-16BE"}


@given(before=st.integers(0, 40), chunk=st.integers(1, 40), times=st.integers(1, 4))
def test_no_border_of_pieces_hides_it_or_counts_it_twice(before, chunk, times):
    data = b"." * before + b"-".join([PLAIN.encode()] * times)
    search = residue._Search({"text": PLAIN})
    size, found = search.one("here", (data[at : at + chunk] for at in range(0, len(data), chunk)))
    assert size == len(data)
    assert [(one.form, one.times, one.at) for one in found] == [("UTF-8", times, before)]


@given(st.text(min_size=65, max_size=3_000), st.integers(0, 2_000))
def test_of_a_long_text_no_page_goes_unseen(text, start):
    """Whatever 1,000 characters of it are left."""
    left = text[start : start + 1_000]
    pieces = pieces_of(text)
    assert pieces[0] == text[:48]
    assert pieces[-1] == text[-48:]
    assert len(left) < 1_000 or any(piece in left for piece in pieces)


def test_files_and_folders_packed_ones_too(tmp_path):
    data = f"a line\n{PLAIN}\n".encode()
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/plain").write_bytes(data)
    (tmp_path / "one.gz").write_bytes(gzip.compress(data))
    (tmp_path / "two.bz2").write_bytes(bz2.compress(data))
    (tmp_path / "three.xz").write_bytes(lzma.compress(data))
    (tmp_path / "again").symlink_to(tmp_path / "deep/er/plain")
    read = []
    done = search_files([tmp_path, tmp_path / "one.gz"], {"text": PLAIN}, read.append)
    found = {one.where.removeprefix(f"{tmp_path}/") for one in done.found}
    assert found >= {"one.gz (unpacked)", "three.xz (unpacked)", "two.bz2 (unpacked)"}
    # One file of two names is read once.
    assert len(found & {"again", "deep/er/plain"}) == 1
    assert (done.files, done.regions) == (4, ())
    assert sum(read) == sum((tmp_path / name).stat().st_size for name in ("again", "one.gz", "two.bz2", "three.xz"))


@pytest.mark.parametrize("head", [b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"PK\x03\x04"])
def test_what_python_cannot_unpack_is_listed(tmp_path, head):
    (tmp_path / "packed").write_bytes(head + b"....")
    (region,) = search_files([tmp_path], {"text": PLAIN}).regions
    assert region.standing is Standing.NOT_PROVABLE
    assert "unpack it and search" in region.why


def test_a_damaged_archive_and_a_file_that_is_gone_are_listed(tmp_path):
    (tmp_path / "half.gz").write_bytes(gzip.compress(b"x" * 10_000)[:30])
    done = search_files([tmp_path / "half.gz", tmp_path / "gone"], {"text": PLAIN})
    assert [("cannot be unpacked" in r.why, "cannot be read" in r.why) for r in done.regions] == [
        (True, False),
        (False, True),
    ]
