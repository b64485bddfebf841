"""Two versions of the program on one PostgreSQL store, and input that a server takes worse than a file does."""

from __future__ import annotations

import asyncio

import pytest
from scenes import DONE, Scene

import interlock
from interlock import StopReason
from interlock.core.errors import ConfigError
from interlock.stores.pg_address import parse_address
from interlock.stores.pg_schema import SCHEMA_VERSION
from interlock.stores.postgres import PostgresStore


@pytest.fixture
def new_url(pg_server):
    url = pg_server.new_url()
    yield url
    pg_server.execute(f"drop schema if exists {parse_address(url).schema} cascade")


def opened(url):
    return PostgresStore(url, environ={}, replay="plaintext")


async def test_who_is_connected_goes_on_when_a_newer_program_has_brought_the_store_up(pg_server, new_url, clock):
    older = opened(new_url)
    scene = Scene(older, clock)
    await scene.begin()
    schema = parse_address(new_url).schema
    pg_server.execute(
        f"insert into {schema}.migrations values ({SCHEMA_VERSION + 1}, 'from the future'); "
        f"alter table {schema}.runs add column invented text; alter table {schema}.journal add column invented text"
    )
    assert await scene.claim() is None
    assert await scene.settle(DONE)
    assert await scene.end()
    older.close()
    with pytest.raises(ConfigError, match=r"newer Interlock.*upgrade interlock"):
        opened(new_url)


async def test_a_gate_says_what_is_wrong_with_its_store(pg_server, new_url):
    opened(new_url).close()
    pg_server.execute(f"insert into {parse_address(new_url).schema}.migrations values (99, 'from the future')")
    gate = interlock.Interlock({"replay": "plaintext"}, store=new_url)
    with pytest.raises(ConfigError, match="newer Interlock"):
        gate.house()
    gate.close()


@pytest.mark.parametrize("hidden", ["hunter2", "p%40ss"])
def test_no_error_tells_the_password(pg_server, hidden):
    for url in (
        f"postgresql://ada:{hidden}@/nowhere?host={pg_server.folder}",
        f"postgresql://ada:{hidden}@/postgres?host=/nowhere",
        f"postgresql://ada@/nowhere?host={pg_server.folder}&password={hidden}",
        f"postgresql://ada:{hidden}@h/d?schema=NOT",
    ):
        with pytest.raises(interlock.errors.InterlockError) as caught:
            opened(url)
        assert hidden not in str(caught.value)


async def test_the_longest_names_that_are_let_in_fit_into_an_index(new_url):
    """PostgreSQL takes no key of more than 2,700 bytes."""

    async def agent(run, task):
        return await run.call("post", {"text": task})

    async with interlock.Interlock({"replay": "plaintext"}, store=new_url) as gate:

        @gate.tool("post", effect="write", natural=True)
        async def post(text: str) -> str:
            return text

        # Of many different letters: one that repeats would be packed.
        wide = "".join(map(chr, range(0x4E00, 0x4E00 + 341)))
        for longest in (wide, "".join(map(chr, range(0xA1, 0xA1 + 512))).replace("\xad", "-")):
            result = await gate.run(agent, "hello", request_id=longest, tenant_id=longest)
            assert (result.reason, result.output) == (StopReason.SUCCESS, "hello"), result.details
        for wrong in (wide * 2, "x" * 10_000, "a\x00b", "a\nb"):
            result = await gate.run(agent, "hello", request_id=wrong)
            assert (result.reason, "512 printable characters" in str(result.details)) == (
                StopReason.INVALID_INPUT,
                True,
            )


async def test_a_result_of_50_mb_is_refused_by_its_cap_and_the_store_goes_on(new_url):
    """The write happened; its answer is over `tools.max_output_bytes`, and is not kept."""

    async def agent(run, task):
        seen = await run.observe("export", {"n": 50_000_000})
        return [seen.ok, await run.call("export", {"n": 3})]

    async with interlock.Interlock({"replay": "plaintext"}, store=new_url) as gate:

        @gate.tool("export", effect="write", natural=True)
        async def export(n: int) -> str:
            return "x" * n

        result = await gate.run(agent, "hello", request_id="r1")
        assert (result.reason, result.output) == (StopReason.SUCCESS, [False, "xxx"]), result.details
        claims = await gate.house().store.claims_of(result.run_id)
        assert sorted(claim.verified for claim in claims) == [False, True]


async def test_a_batch_larger_than_a_message_may_be_is_written_in_pieces(new_url, clock):
    """Sixty outputs of a megabyte, at once."""
    store = opened(new_url)
    scenes = [Scene(store, clock) for _ in range(60)]
    for n, scene in enumerate(scenes):
        await scene.begin(f"r{n}", f"q{n}")

    assert all(await asyncio.gather(*(scene.end(output=b"x" * 1_000_000) for scene in scenes)))
    assert {len(row.output) for row in await store.runs(limit=100)} == {1_000_000}
    store.close()
