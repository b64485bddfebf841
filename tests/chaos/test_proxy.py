"""The fault proxy before a real HTTP server: what a client sees of each fault, and what has happened at the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

import interlock
from interlock import StopReason
from interlock.chaos.backend import Backend
from interlock.chaos.http_client import AnswerLost, HttpClient, HttpStatusError
from interlock.chaos.proxy import FaultProxy
from interlock.chaos.spoken import spoken_wire_fault
from interlock.chaos.wire import WireFault, WireKind
from interlock.core.errors import ConfigError


@pytest.fixture
async def server():
    """`HOST:PORT` of a ticketing backend in clear weather."""
    backend = Backend(time_scale=0.0001)
    port = await backend.start()
    yield f"127.0.0.1:{port}"
    await backend.close()


@contextlib.asynccontextmanager
async def through(server, *faults, **words):
    """A proxy before the server, and a client of it."""
    words = {"framing": "http", **words}
    async with FaultProxy(server, [spoken_wire_fault(fault) for fault in faults], **words) as proxy:
        yield proxy, HttpClient(f"http://{proxy.address}")


async def ticket(client, title="Log-in fails", key="k1"):
    body = {"project": "clear", "title": title, "description": "d", "idempotency_key": key}
    return (await client.request("POST", "/tickets", body=body)).status


async def happened(server, what):
    """How many requests, or effects, the server has on its list; asked past the proxy."""
    reply = await HttpClient(f"http://{server}").request("GET", f"/{what}", query={"project": "clear"})
    return reply.body["count"]


async def end_of(client, patience_s=None):
    """How a request of this client ends."""
    try:
        async with asyncio.timeout(patience_s):
            return await ticket(client)
    except HttpStatusError as error:
        return error.status
    except (AnswerLost, ConnectionRefusedError, TimeoutError) as error:
        return type(error)


@pytest.mark.parametrize("framing", ["http", "tcp"])
@pytest.mark.parametrize(
    ("fault", "end", "reached"),
    [
        ("latency delay_s=0.01", 201, 1),
        ("bandwidth bytes_per_s=20000", 201, 1),
        ("drip delay_s=0 chunk_bytes=7", 201, 1),
        ("reset", AnswerLost, 0),
        ("reset_mid_body", AnswerLost, 1),
        ("reset_mid_body after_bytes=0", AnswerLost, 1),
        ("malformed_body", AnswerLost, 1),
        ("answer_lost", AnswerLost, 1),
        ("timeout delay_s=0.05", AnswerLost, 0),
        ("black_hole delay_s=0.05", AnswerLost, 0),
    ],
)
async def test_what_the_client_sees_and_what_has_happened(server, framing, fault, end, reached):
    async with through(server, fault + " calls=[1]", framing=framing) as (proxy, client):
        assert await end_of(client) == end
        assert await happened(server, "requests") == await happened(server, "effects") == reached
        assert dict(proxy.injected) == {fault.split()[0]: 1}
        # The second meets nothing; the server knows the key of what it has done.
        assert await end_of(client) == (200 if reached else 201)
        assert (await happened(server, "effects"), proxy.connections, proxy.requests) == (1, 2, 2)


@pytest.mark.parametrize(("fault", "reached"), [("timeout", 0), ("black_hole", 0), ("half_open", 1)])
async def test_silence_lasts_until_the_client_gives_up(server, fault, reached):
    async with through(server, fault) as (_, client):
        assert await end_of(client, 0.3) is TimeoutError
        assert await happened(server, "effects") == reached


async def test_a_half_open_connection_is_closed_on_one_side_only():
    """The server has hung up; the client may send as much as it likes, and hears nothing."""
    ended = asyncio.Event()

    async def serve(reader, writer):
        await reader.readline()
        writer.write(b"welcome\n")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        ended.set()

    remote = await asyncio.start_server(serve, "127.0.0.1", 0)
    to = f"127.0.0.1:{remote.sockets[0].getsockname()[1]}"
    async with remote, FaultProxy(to, [WireFault(WireKind.HALF_OPEN)]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello\n")
        await ended.wait()
        writer.write(b"is anybody there?\n" * 1_000)
        await writer.drain()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        writer.close()
        await writer.wait_closed()


async def test_a_black_hole_does_not_tell_the_server_that_the_client_is_gone():
    told = asyncio.Event()

    async def serve(reader, writer):
        await reader.read()
        told.set()
        writer.close()

    remote = await asyncio.start_server(serve, "127.0.0.1", 0)
    to = f"127.0.0.1:{remote.sockets[0].getsockname()[1]}"
    async with remote:
        for kind, hears in ((WireKind.TIMEOUT, True), (WireKind.BLACK_HOLE, False)):
            told.clear()
            async with FaultProxy(to, [WireFault(kind)]) as proxy:
                _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                writer.write(b"hello\n")
                while not proxy.requests:  # noqa: ASYNC110 - what another task counts
                    await asyncio.sleep(0.01)
                writer.close()
                await writer.wait_closed()
                if hears:
                    await told.wait()
                else:
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await told.wait()


async def test_http_answers_in_place_of_the_server(server):
    async with through(server, "429_errors retry_after_s=2 calls=[1]", "http status=502 calls=[2]") as (_, client):
        with pytest.raises(HttpStatusError) as caught:
            await ticket(client)
        assert (caught.value.status, caught.value.headers["retry-after"]) == (429, "2")
        assert await end_of(client) == 502
        assert await happened(server, "requests") == 0


async def test_a_502_after_the_ticket_was_created(server):
    async with through(server, "answer_lost status=502 calls=[1]") as (_, client):
        assert await end_of(client) == 502
        assert await happened(server, "effects") == 1


async def test_a_connection_is_refused_while_the_window_lasts(server):
    async with through(server, "connect_refused until_s=3600") as (proxy, client):
        assert await end_of(client) is ConnectionRefusedError
        assert (proxy.connections, dict(proxy.injected)) == (0, {"connect_refused": 1})
        address = proxy.address
        await proxy.arm([])
        assert proxy.address == address
        assert await end_of(client) == 201


async def test_a_window_ends_and_the_port_is_the_same(server):
    async with through(server, "connect_refused until_s=0.05") as (proxy, client):
        address = proxy.address
        ends = [await end_of(client)]
        while ends[-1] is ConnectionRefusedError:
            await asyncio.sleep(0.02)
            ends.append(await end_of(client))
        assert ends[-1] == 201
        assert proxy.address == address


async def test_requests_are_chosen_by_name_number_and_connection(server):
    async with through(server, "http status=500 what='POST /*' calls=[2]", "http status=501 connections=[4]") as (
        proxy,
        client,
    ):
        assert (await client.request("GET", "/health")).status == 200
        assert [await end_of(client) for _ in range(3)] == [201, 500, 501]
        assert dict(proxy.injected) == {"http_500": 1, "http_501": 1}


async def test_requests_of_one_connection_are_counted_one_by_one(server):
    httpx = pytest.importorskip("httpx")
    told = []
    async with (
        through(server, "answer_lost calls=[3]", told=told.append) as (proxy, _),
        httpx.AsyncClient(base_url=f"http://{proxy.address}", trust_env=False) as client,
    ):
        for _ in range(2):
            assert (await client.get("/health")).status_code == 200
        with pytest.raises(httpx.TransportError):
            await client.get("/search", params={"query": "a secret", "page": "1"})
        assert (await client.get("/health")).status_code == 200
    assert [(each.fault, each.connection, each.request, each.what) for each in told] == [
        ("answer_lost", 1, 3, "GET /search")
    ]


async def test_chance_comes_from_the_seed(server):
    async def ends(seed):
        async with through(server, "500_errors probability=0.5", seed=seed) as (_, client):
            return [await end_of(client) for _ in range(40)]

    first, again, other = await ends(1), await ends(1), await ends(2)
    assert [end == 500 for end in first] == [end == 500 for end in again]
    assert [end == 500 for end in first] != [end == 500 for end in other]
    assert 8 < first.count(500) < 32


async def test_a_window_is_judged_at_each_request(server):
    async with through(server, "500_errors from_s=3600") as (proxy, client):
        assert await end_of(client) == 201
        await proxy.arm([spoken_wire_fault("500_errors until_s=3600")])
        assert await end_of(client) == 500
        await proxy.arm([])
        assert await end_of(client) == 200


async def test_many_at_once_meet_as_many_faults_as_were_drawn(server):
    async with through(server, "answer_lost probability=0.3") as (proxy, client):
        requests = (
            client.request("POST", "/tickets", body={"project": "clear", "title": f"t{n}", "description": "d"})
            for n in range(60)
        )
        ends = await asyncio.gather(*requests, return_exceptions=True)
        lost = sum(isinstance(end, AnswerLost) for end in ends)
        assert lost == proxy.injected["answer_lost"]
        assert 5 < lost < 40
        assert await happened(server, "effects") == 60  # all of them were carried out


async def test_a_server_that_is_away_is_told(server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{unused.getsockname()[1]}"
        failed = []
        async with through(away, failed=failed.append) as (proxy, client):
            with pytest.raises(ConfigError, match=f"--to {away}: cannot be reached: connection refused"):
                await proxy.check()
            assert await end_of(client) is AnswerLost
        assert failed == [f"connection 1: --to {away}: connection refused"]


async def test_sockets_of_the_file_system(server, tmp_path):
    path = f"unix:{tmp_path}/inner"
    async with FaultProxy(server, listen=path), through(path, "reset calls=[1]") as (_, client):
        assert await end_of(client) is AnswerLost
        assert await end_of(client) == 201
        with pytest.raises(ConfigError, match="cannot be used: address already in use"):
            await FaultProxy(server, listen=path).start()
    assert list(tmp_path.iterdir()) == []


async def test_nothing_is_left_when_it_is_closed(server):
    before = asyncio.all_tasks()
    async with through(server, "black_hole calls=[1]", "timeout calls=[2]", "half_open calls=[3]") as (proxy, client):
        waiting = [asyncio.create_task(end_of(client)) for _ in range(4)]
        while proxy.requests < 4:  # noqa: ASYNC110 - what another task counts
            await asyncio.sleep(0.01)
    ends = await asyncio.gather(*waiting)
    assert set(ends) <= {AnswerLost, 201, 200}
    async with asyncio.timeout(30.0):  # the server still takes note that its clients have gone
        while asyncio.all_tasks() != before:  # noqa: ASYNC110 - what the loop itself counts
            await asyncio.sleep(0.01)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_a_port_that_is_taken(server):
    with pytest.raises(ConfigError, match=rf"--listen {server}: cannot be used: address already in use"):
        await FaultProxy(server, listen=server).start()


def test_faults_that_need_to_read_what_passes():
    with pytest.raises(ConfigError, match="only HTTP has a status"):
        FaultProxy("127.0.0.1:1", [WireFault(WireKind.HTTP)])
    with pytest.raises(ConfigError, match="bytes have no name"):
        FaultProxy("127.0.0.1:1", [WireFault(WireKind.RESET, what="GET *")])
    FaultProxy("127.0.0.1:1", [WireFault(WireKind.RESET, what="SELECT")], framing="postgres")


# -- under the gate


@pytest.mark.parametrize("fault", ["answer_lost", "answer_lost status=502", "reset_mid_body"])
async def test_a_write_whose_answer_is_lost_is_one_effect_under_the_gate(server, fault):
    async with (
        through(server, fault + " what='POST *' calls=[1, 2]") as (proxy, client),
        interlock.Interlock(
            {"tools": {"retries": {"backoff_ms": [1]}}, "logging": {"level": "error"}}, store="sqlite:///:memory:"
        ) as gate,
    ):

        @gate.tool("ticket.create", effect="write")
        async def create(title: str, *, idempotency_key: str) -> dict:
            body = {"project": "clear", "title": title, "description": "d", "idempotency_key": idempotency_key}
            return (await client.request("POST", "/tickets", body=body)).body

        async def agent(run, task):
            return (await run.call("ticket.create", {"title": task}))["status"]

        result = await gate.run(agent, "Log-in fails", request_id="q1")
        assert (result.reason, result.output) == (StopReason.SUCCESS, "created")
        assert sum(proxy.injected.values()) == 2
        assert (await happened(server, "requests"), await happened(server, "effects")) == (3, 1)


async def test_a_write_that_cannot_be_asked_again_is_one_effect_and_a_doubt(server):
    async with (
        through(server, "answer_lost what='POST *'") as (_, client),
        interlock.Interlock({"logging": {"level": "error"}}, store="sqlite:///:memory:") as gate,
    ):

        @gate.tool("ticket.create", effect="write", on_unknown="stop", allow=True)
        async def create(title: str) -> dict:
            body = {"project": "clear", "title": title, "description": "d"}
            return (await client.request("POST", "/tickets", body=body)).body

        async def agent(run, task):
            return [(await run.observe("ticket.create", {"title": task})).ok for _ in range(3)]

        result = await gate.run(agent, "Log-in fails", request_id="q1")
        assert result.reason is StopReason.OUTCOME_UNKNOWN
        assert (await happened(server, "requests"), await happened(server, "effects")) == (1, 1)
