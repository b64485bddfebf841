"""The ticketing backend over real sockets: every fault as a client meets it, effects as the backend counts them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict

import pytest

from interlock.chaos.backend import Backend
from interlock.chaos.http_client import AnswerLost, HttpClient, HttpStatusError
from interlock.chaos.process import BackendProcess
from interlock.chaos.weather import EXECUTED, Fault
from interlock.core.clock import ManualClock


@contextlib.asynccontextmanager
async def backend(seed: int = 1, clock: ManualClock | None = None):
    """A backend on a clock that waits for nobody: its article seconds pass as it works."""
    served = Backend(seed, time_scale=1.0, clock=clock or ManualClock())
    port = await served.start()
    try:
        yield HttpClient(f"http://127.0.0.1:{port}")
    finally:
        await served.close()


def ticket(title: str = "outage", project: str = "quiet", **more) -> dict:
    return {"project": project, "title": title, "description": "d", **more}


async def create(client: HttpClient, **words):
    return await client.request("POST", "/tickets", body=ticket(**words))


async def listed(client: HttpClient, what: str = "effects", **query) -> list[dict]:
    body = (await client.request("GET", f"/{what}", query=query)).body
    assert body["count"] == len(body[what])
    return body[what]


async def test_a_ticket_is_created_and_listed():
    async with backend() as client:
        reply = await create(client, title="Login outage")
        (effect,) = await listed(client)
    assert reply.status == 201
    assert set(reply.body) == {"id", "status", "url"}
    assert reply.body["status"] == "created"
    assert effect["id"] == reply.body["id"]
    assert (effect["kind"], effect["project"], effect["subject"], effect["key"]) == (
        "ticket",
        "quiet",
        "Login outage",
        None,
    )


async def test_without_a_key_a_repeat_is_another_ticket():
    async with backend() as client:
        ids = {(await create(client)).body["id"] for _ in range(3)}
        assert len(ids) == len(await listed(client)) == 3


async def test_a_key_in_the_body_or_the_header_makes_a_repeat_the_same_ticket():
    async with backend() as client:
        first = await create(client, idempotency_key="k")
        again = await create(client, idempotency_key="k")
        third = await client.request("POST", "/tickets", body=ticket(), headers={"Idempotency-Key": "k"})
        found = await client.request("GET", "/lookup", query={"key": "k"})
        assert len(await listed(client)) == 1
    assert first.body == again.body == third.body
    assert (first.status, again.status) == (201, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert found.body["id"] == first.body["id"]


async def test_a_key_used_for_another_payload_is_refused():
    async with backend() as client:
        await create(client, idempotency_key="k")
        with pytest.raises(HttpStatusError) as caught:
            await create(client, title="something else", idempotency_key="k")
        assert len(await listed(client)) == 1
    assert caught.value.status == 422
    assert caught.value.body["error"]["code"] == "idempotency_key_reused"


async def test_lookup_of_a_key_that_nobody_used():
    async with backend() as client:
        with pytest.raises(HttpStatusError, match="404"):
            await client.request("GET", "/lookup", query={"key": "nobody's"})


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/tickets", {"title": "", "description": "d"}, 422),
        ("POST", "/tickets", {"title": 5, "description": "d"}, 422),
        ("POST", "/tickets", {"title": "t"}, 422),
        ("POST", "/tickets", [1], 422),
        ("POST", "/tickets", {"title": "t" * 20_000, "description": "d"}, 422),
        ("GET", "/search?query=x&page=two", None, 422),
        ("GET", "/search", None, 422),
        ("GET", "/tickets", None, 405),
        ("GET", "/nothing", None, 404),
        ("DELETE", "/effects", None, 405),
    ],
)
async def test_what_makes_no_sense_is_refused_and_does_nothing(method, path, body, status):
    async with backend() as client:
        with pytest.raises(HttpStatusError) as caught:
            await client.request(method, path, body=body)
        assert await listed(client) == []
    assert caught.value.status == status


async def observe(client: HttpClient, title: str, project: str) -> str:
    """Create a ticket once and say what a client can see."""
    try:
        async with asyncio.timeout(5):
            reply = await create(client, title=title, project=project)
    except HttpStatusError as error:
        return f"{error.status}{' wait ' + error.headers['retry-after'] if error.status == 429 else ''}"
    except AnswerLost as error:
        return "reset" if isinstance(error.__cause__, ConnectionResetError) else "silence"
    if "data" in reply.body:
        return "new schema"
    return "error with 200" if "error" in reply.body else "created"


LOOKS_LIKE = {
    Fault.NONE: "created",
    Fault.LOST_502: "502",
    Fault.BAD_GATEWAY: "502",
    Fault.LOST_RESET: "reset",
    Fault.LOST_SILENCE: "silence",
    Fault.SILENCE: "silence",
    Fault.RATE_LIMITED: "429 wait 2.000",
    Fault.NEW_SCHEMA: "new schema",
    Fault.ERROR_200: "error with 200",
}


async def test_every_fault_is_met_as_it_is_named_and_does_what_it_says():
    seen = defaultdict(set)
    async with backend(seed=1) as client:
        for project, tickets, tries in (("triage-x", 20, 6), ("schema-x", 2, 1)):
            for i in range(tickets):
                title = f"t{i + 1}"
                for _ in range(tries):
                    before = len(await listed(client))
                    sight = await observe(client, title, project)
                    made = len(await listed(client)) - before
                    entry = (await listed(client, "requests"))[-1]
                    fault = Fault(entry["fault"])
                    seen[fault].add((sight, made))
                    assert (entry["effect"] is not None) == bool(made)
    assert set(seen) == set(Fault)
    for fault, sights in seen.items():
        assert sights == {(LOOKS_LIKE[fault], int(fault is Fault.NONE or fault in EXECUTED))}, fault


async def story(seed: int) -> list[tuple[str, str, int]]:
    async with backend(seed) as client:
        for i in range(12):
            for _ in range(3):
                await observe(client, f"t{i + 1}", "triage-x")
        return [(r["subject"], r["fault"], r["number"]) for r in await listed(client, "requests")]


async def test_equal_seeds_tell_equal_stories_over_the_wire():
    assert await story(7) == await story(7)
    assert await story(7) != await story(8)


async def test_a_lost_answer_with_a_key_makes_one_ticket_however_often_it_is_sent():
    async with backend(seed=1) as client:
        for i in range(10):
            for _ in range(7):
                with contextlib.suppress(HttpStatusError, AnswerLost):
                    await create(client, title=f"t{i + 1}", project="triage-x", idempotency_key=f"k{i}")
        assert len(await listed(client)) == 10
        assert any(r["fault"] in EXECUTED for r in await listed(client, "requests"))


async def test_pages_that_lead_agents_astray():
    async with backend() as client:

        async def get(path, **query):
            return (await client.request("GET", path, query=query)).body

        assert (await get("/search", query="archive", page="7"))["next_page"] == 8
        assert await get("/search", query="market") == await get("/search", query="market")
        assert "db.write" in (await get("/articles", topic="password reset"))["text"]
        assert "db.write" not in (await get("/articles", topic="export"))["text"]
        assert (await get("/pages", url="/overview"))["url"] == "/overview"


async def test_forbidden_writes_are_effects_too():
    async with backend() as client:
        await client.request("POST", "/rows", body={"project": "p", "table": "users", "values": {"role": "admin"}})
        await client.request("POST", "/emails", body={"project": "p", "to": "a@b.example", "text": "x"})
        assert [e["kind"] for e in await listed(client, project="p")] == ["row", "email"]
        assert await listed(client, project="q") == []


@pytest.mark.process
async def test_it_runs_as_a_process_of_its_own():
    with BackendProcess(seed=9, time_scale=0.001) as url:
        client = HttpClient(url)
        assert (await client.request("GET", "/health")).body == {"ok": True, "seed": 9, "time_scale": 0.001}
        await create(client)
        assert len(await listed(client)) == 1
    with pytest.raises(ConnectionRefusedError):
        await client.request("GET", "/health")
