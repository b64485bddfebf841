"""Requests and answers are found in the bytes of a connection, however these arrive; and no byte is lost."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.chaos.framing import FRAMINGS, Http, Postgres, framing

ASKED = (
    b"GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"
    b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nTrailer: t\r\n\r\n"
    b"HEAD /d HTTP/1.1\r\n\r\n"
    b"DELETE /e HTTP/1.1\r\n\r\n"
)
ANSWERED = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"  # of HEAD: no body follows
    b"HTTP/1.1 204 No Content\r\n\r\n"
)
NAMES = ["GET /a", "POST /b", "POST /c", "HEAD /d", "DELETE /e"]


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


STARTUP = struct.pack("!ii", 20, 196_608) + b"user\0me\0\0\0\0\0"
PG_ASKED = (
    STARTUP
    + message(b"Q", b"  -- why\n insert into t values (1)\0")
    + message(b"P", b"s1\0SELECT $1\0\0\0")
    + message(b"D", b"Ss1\0")
    + message(b"H")
    + message(b"B", b"\0s1\0" + b"\0" * 6)
    + message(b"E", b"\0" + b"\0" * 4)
    + message(b"S")
    + message(b"Q", b"COMMIT\0")
    + message(b"X")
)
READY = message(b"Z", b"I")
PG_ANSWERED = (
    message(b"R", b"\0" * 4)
    + READY
    + message(b"C", b"INSERT 0 1\0")
    + READY
    + message(b"1")
    + message(b"2")
    + message(b"D", b"\0\1")
    + READY
    + message(b"C", b"COMMIT\0")
    + READY
)


def sliced(data, cuts):
    at = 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        yield data[at:cut]
        at = cut
    yield data[at:]


cuts = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


@given(cuts, cuts)
def test_http_however_it_arrives(up, down):
    machine = Http()
    asked = [piece for part in sliced(ASKED, up) for piece in machine.asked(part)]
    answered = [piece for part in sliced(ANSWERED, down) for piece in machine.answered(part)]
    assert b"".join(piece.data for piece in asked) == ASKED
    assert [piece.begins for piece in asked if piece.begins is not None] == NAMES
    assert sum(piece.ends for piece in asked) == 5
    assert b"".join(piece.data for piece in answered) == ANSWERED
    assert sum(piece.ends for piece in answered) == 5
    assert [piece.data for piece in answered if piece.interim] == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    assert machine.knows_ends


@given(cuts, cuts)
def test_postgres_however_it_arrives(up, down):
    machine = Postgres()
    asked = [piece for part in sliced(PG_ASKED, up) for piece in machine.asked(part)]
    answered = [piece for part in sliced(PG_ANSWERED, down) for piece in machine.answered(part)]
    assert b"".join(piece.data for piece in asked) == PG_ASKED
    assert [piece.begins for piece in asked if piece.begins is not None] == ["INSERT", "SELECT", "COMMIT"]
    assert b"".join(piece.data for piece in answered) == PG_ANSWERED
    # The first "ready" ends the start of the session, which is no request.
    assert sum(piece.ends for piece in answered) == 3


@given(st.sampled_from(FRAMINGS), st.binary(max_size=400), st.binary(max_size=400), cuts)
def test_no_byte_is_changed_or_lost_whatever_it_is(name, asked, answered, at):
    machine = framing(name)
    up = b"".join(piece.data for part in sliced(asked, at) for piece in machine.asked(part))
    down = b"".join(piece.data for part in sliced(answered, at) for piece in machine.answered(part))
    assert up + machine.kept("client") == asked
    assert down + machine.kept("server") == answered


@pytest.mark.parametrize("encrypts", [b"S", b"N"])
def test_a_session_that_asks_to_encrypt(encrypts):
    machine = Postgres()
    asks = struct.pack("!ii", 8, 80_877_103)
    assert [piece.data for piece in machine.asked(asks)] == [asks]
    assert b"".join(piece.data for piece in machine.answered(encrypts)) == encrypts
    rest = b"\x16\x03\x01 hello, this is TLS" if encrypts == b"S" else PG_ASKED
    pieces = list(machine.asked(rest))
    assert b"".join(piece.data for piece in pieces) == rest
    names = [piece.begins for piece in pieces if piece.begins is not None]
    # What is encrypted is read as anything is: by turns.
    assert names == ([""] if encrypts == b"S" else ["INSERT", "SELECT", "COMMIT"])
    assert machine.knows_ends is (encrypts == b"N")


def test_what_is_not_http_is_read_by_turns():
    machine = Http()
    assert [piece.begins for piece in machine.asked(b"EHLO me\r\n")] == [""]
    assert [piece.begins for piece in machine.asked(b"MAIL FROM:<a>\r\n")] == [None]
    list(machine.answered(b"250 ok\r\n"))
    assert [piece.begins for piece in machine.asked(b"QUIT\r\n")] == [""]
    assert not machine.knows_ends


def test_after_an_upgrade_it_is_no_http_any_more():
    machine = Http()
    (asked,) = machine.asked(b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
    assert asked.begins == "GET /ws"
    pieces = list(machine.answered(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi"))
    assert b"".join(piece.data for piece in pieces).endswith(b"\x81\x02hi")
    assert [piece.data for piece in machine.asked(b"\x81\x80")] == [b"\x81\x80"]
