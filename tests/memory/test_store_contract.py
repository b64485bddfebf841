"""What every store of memory promises, verb by verb."""

from __future__ import annotations

import asyncio

import pytest
from memory_scenes import (
    ACME,
    ANN,
    BOB,
    CHAT,
    GLOBEX,
    HIGH,
    LOW,
    NORMAL,
    NOW,
    held,
    new_artifact,
    new_fact,
    statement,
    texts,
)

from interlock.core.errors import InvalidArguments
from interlock.memory.fact import State
from interlock.memory.scope import Scope
from interlock.memory.store import PurgePolicy, Search

# -- writing and reading


async def test_what_is_remembered_comes_back_whole(memory):
    new = statement("Q3", tags=("calendar", "q"), verify_by=NOW + 9, vector=b"\0\0\x80\x3f", ttl_s=61.5)
    written = await memory.remember(CHAT, new)
    fact = await memory.get(CHAT, new.fact_id, NOW)
    assert fact == written
    assert (fact.text, fact.value_json, fact.subject, fact.key) == ("quarter: Q3", b'"Q3"', "finance", "quarter")
    assert (fact.tags, fact.verify_by, fact.vector) == (("calendar", "q"), NOW + 9, b"\0\0\x80\x3f")
    assert (fact.scope, fact.created_at, fact.expires_at) == (CHAT, NOW, NOW + 61.5)
    assert (fact.trust, fact.state, fact.pinned, fact.verified_at) == (NORMAL, State.ACTIVE, False, None)
    assert fact.origin == new.origin


async def test_a_read_sees_what_was_queued_before_it(memory):
    new = new_fact()
    memory.remember_soon(ANN, new)
    assert await held(memory, ANN, new.fact_id) == new.text
    other = new_fact("Ann lives in Riga")
    memory.remember_soon(ANN, other)
    assert await texts(memory, ANN, "riga") == ["Ann lives in Riga"]


async def test_the_same_id_is_written_once(memory):
    new = new_fact()
    first = await memory.remember(ANN, new)
    again = await memory.remember(ANN, new_fact("other words", fact_id=new.fact_id, now=NOW + 5))
    assert again == first
    memory.remember_soon(ANN, new)
    assert await texts(memory, ANN, "email") == [new.text]


async def test_an_id_that_is_gone_is_not_written_again(memory):
    new = new_fact()
    await memory.remember(ANN, new)
    assert await memory.forget(ANN, new.fact_id, NORMAL)
    memory.remember_soon(ANN, new)
    assert await memory.remember(ANN, new) is None
    assert await held(memory, ANN, new.fact_id) is None


async def test_ids_of_two_tenants_do_not_meet(memory):
    new = new_fact("acme's")
    theirs = new_fact("globex's", fact_id=new.fact_id)
    await memory.remember(ACME, new)
    await memory.remember(GLOBEX, theirs)
    assert await held(memory, ACME, new.fact_id) == "acme's"
    assert await held(memory, GLOBEX, new.fact_id) == "globex's"
    await memory.forget(GLOBEX, new.fact_id, NORMAL)
    assert await held(memory, ACME, new.fact_id) == "acme's"


# -- scope


@pytest.mark.parametrize(
    ("written", "read", "seen"),
    [
        (ACME, ACME, True),
        (ACME, CHAT, True),
        (ANN, CHAT, True),
        (CHAT, CHAT, True),
        (CHAT, ANN, False),
        (CHAT, Scope("acme", "ann", "chat-2"), False),
        (ANN, ACME, False),
        (ANN, BOB, False),
        (ACME, GLOBEX, False),
        (ANN, Scope("globex", "ann"), False),
        (Scope("a", "b:c"), Scope("a", "b", "c"), False),
        (Scope("a", "b/c"), Scope("a", "b", "c"), False),
        (Scope("a'--"), Scope("a"), False),
        (Scope("a%"), Scope("ab"), False),
        (Scope("ACME"), ACME, False),
    ],
)
async def test_agents_read_up_and_never_sideways(memory, written, read, seen):
    new = new_fact()
    await memory.remember(written, new)
    assert read.sees(written) is seen
    assert (await held(memory, read, new.fact_id) is not None) is seen
    assert (new.text in await texts(memory, read, "email")) is seen
    assert (new.text in await texts(memory, read)) is seen
    artifact = new_artifact()
    memory.put_artifact_soon(written, artifact)
    assert (await memory.get_artifact(read, "report", NOW) is not None) is seen


@pytest.mark.parametrize("other", [ACME, CHAT, BOB, Scope("acme", "ann", "chat-2"), GLOBEX, Scope("globex", "ann")])
async def test_a_change_needs_exactly_the_scope(memory, other):
    new = new_fact()
    await memory.remember(ANN, new)
    assert not await memory.forget(other, new.fact_id, HIGH)
    assert not await memory.pin(other, new.fact_id, HIGH, NOW, pinned=True)
    assert not await memory.verify(other, new.fact_id, HIGH, NOW, None)
    assert await memory.remember(other, new_fact("mine now"), supersedes=new.fact_id) is None
    memory.put_artifact_soon(ANN, new_artifact(data=b"1"))
    memory.put_artifact_soon(other, new_artifact(data=b"2"))
    fact = await memory.get(ANN, new.fact_id, NOW)
    assert (fact.text, fact.pinned, fact.verified_at) == (new.text, False, None)
    assert (await memory.get_artifact(ANN, "report", NOW)).data == b"1"


async def test_the_narrowest_artifact_is_read(memory):
    for scope, data in ((ACME, b"1"), (ANN, b"2"), (CHAT, b"3")):
        memory.put_artifact_soon(scope, new_artifact(data=data))
    assert [(await memory.get_artifact(scope, "report", NOW)).data for scope in (CHAT, ANN, ACME, BOB)] == [
        b"3",
        b"2",
        b"1",
        b"1",
    ]


# -- time


async def test_a_fact_lives_to_the_second(memory):
    new = new_fact(ttl_s=60.0, key="k", value_json=b"1")
    memory.remember_soon(ANN, new)
    memory.put_artifact_soon(ANN, new_artifact(ttl_s=60.0))
    for now, seen in ((NOW + 59, True), (NOW + 59.999, True), (NOW + 60, False), (NOW + 1e9, False), (NOW + 59, True)):
        assert (await held(memory, ANN, new.fact_id, now) is not None) is seen
        assert (await texts(memory, ANN, "email", now=now) == [new.text]) is seen
        assert (await texts(memory, ANN, now=now) == [new.text]) is seen
        assert (await memory.get_artifact(ANN, "report", now) is not None) is seen
    assert not await memory.pin(ANN, new.fact_id, NORMAL, NOW + 60, pinned=True)
    assert not await memory.verify(ANN, new.fact_id, NORMAL, NOW + 60, None)
    assert await memory.remember(ANN, new_fact(now=NOW + 60), supersedes=new.fact_id) is None


async def test_reading_pinning_and_verifying_do_not_prolong_a_life(memory):
    new = new_fact(ttl_s=60.0)
    await memory.remember(ANN, new)
    for now in (NOW + 20, NOW + 40, NOW + 59):
        await memory.get(ANN, new.fact_id, now)
        await texts(memory, ANN, "email", now=now)
        await memory.pin(ANN, new.fact_id, NORMAL, now, pinned=True)
        await memory.verify(ANN, new.fact_id, NORMAL, now, now + 500)
    assert (await memory.get(ANN, new.fact_id, NOW + 59.5)).expires_at == NOW + 60
    assert await memory.get(ANN, new.fact_id, NOW + 60) is None


async def test_a_fact_of_the_future_is_not_read_until_the_clock_has_caught_up(memory):
    new = new_fact(ttl_s=60.0)
    await memory.remember(ANN, new)
    assert await held(memory, ANN, new.fact_id, NOW - 300) is not None
    assert await held(memory, ANN, new.fact_id, NOW - 301) is None
    assert await texts(memory, ANN, "email", now=NOW - 301) == []


async def test_history_lives_as_long_as_it_was_to(memory):
    old, new = statement("Q3", ttl_s=30.0), statement("Q4", ttl_s=60.0, now=NOW + 1)
    await memory.remember(ANN, old)
    await memory.remember(ANN, new)
    assert [fact.text for fact in await memory.past(ANN, new.fact_id, NOW + 29)] == ["quarter: Q3"]
    assert await memory.past(ANN, new.fact_id, NOW + 30) == []


# -- contradictions and history


async def test_a_statement_replaces_the_one_of_its_subject_and_key(memory):
    q3, q4 = statement("Q3"), statement("Q4", now=NOW + 1)
    other_key, other_subject = statement("EUR", key="currency"), statement("Q1", subject="sales")
    for new in (q3, other_key, other_subject, q4):
        await memory.remember(ANN, new)
    assert sorted(await texts(memory, ANN, now=NOW + 2)) == ["currency: EUR", "quarter: Q1", "quarter: Q4"]
    assert await held(memory, ANN, q3.fact_id, NOW + 2) is None
    (past,) = await memory.past(ANN, q4.fact_id, NOW + 2)
    assert (past.text, past.state, past.superseded_by, past.superseded_at) == (
        "quarter: Q3",
        State.SUPERSEDED,
        q4.fact_id,
        NOW + 1,
    )
    assert (await memory.get(ANN, q4.fact_id, NOW + 2)).supersedes == q3.fact_id


async def test_a_statement_of_another_scope_is_left_alone(memory):
    shared, own = statement("Q3"), statement("Q4")
    await memory.remember(ACME, shared)
    await memory.remember(ANN, own)
    assert sorted(await texts(memory, ANN)) == ["quarter: Q3", "quarter: Q4"]
    assert await texts(memory, BOB) == ["quarter: Q3"]


async def test_texts_do_not_contradict_each_other(memory):
    for text in ("Ann likes tea", "Ann likes coffee"):
        await memory.remember(ANN, new_fact(text, subject="ann"))
    assert len(await texts(memory, ANN, "ann")) == 2


@pytest.mark.parametrize("stands", ["pinned", "trusted"])
async def test_what_stands_firm_sends_a_contradiction_to_quarantine(memory, stands):
    old = statement("Q3", trust=HIGH if stands == "trusted" else NORMAL)
    await memory.remember(ANN, old)
    if stands == "pinned":
        assert await memory.pin(ANN, old.fact_id, NORMAL, NOW, pinned=True)
    new = await memory.remember(ANN, statement("Q4"))
    assert new.state is State.QUARANTINED
    assert await texts(memory, ANN) == ["quarter: Q3"]


async def test_a_fact_is_superseded_by_name(memory):
    old = new_fact("Ann lives in Riga")
    await memory.remember(ANN, old)
    await memory.pin(ANN, old.fact_id, NORMAL, NOW, pinned=True)
    new = await memory.remember(ANN, new_fact("Ann lives in Oslo"), supersedes=old.fact_id)
    assert (new.state, new.supersedes) == (State.ACTIVE, old.fact_id)
    assert await texts(memory, ANN, "ann") == ["Ann lives in Oslo"]
    assert [fact.text for fact in await memory.past(ANN, new.fact_id, NOW)] == ["Ann lives in Riga"]
    assert await memory.remember(ANN, new_fact("again"), supersedes=old.fact_id) is None


async def test_less_trust_supersedes_nothing_by_name_either(memory):
    old = new_fact("IBAN 1", trust=NORMAL)
    await memory.remember(ANN, old)
    new = await memory.remember(ANN, new_fact("IBAN 2", trust=LOW), supersedes=old.fact_id)
    assert new.state is State.QUARANTINED
    assert await texts(memory, ANN, "iban") == ["IBAN 1"]
    assert await memory.release(ANN, new.fact_id, HIGH, NOW)
    assert await texts(memory, ANN, "iban") == ["IBAN 2"]
    assert [fact.text for fact in await memory.past(ANN, new.fact_id, NOW)] == ["IBAN 1"]


@pytest.mark.parametrize("verb", ["forget", "pin", "verify"])
async def test_less_trust_changes_nothing(memory, verb):
    new = new_fact(trust=NORMAL)
    await memory.remember(ANN, new)
    if verb == "forget":
        assert not await memory.forget(ANN, new.fact_id, LOW)
    elif verb == "pin":
        assert not await memory.pin(ANN, new.fact_id, LOW, NOW, pinned=True)
    else:
        assert not await memory.verify(ANN, new.fact_id, LOW, NOW, None)
    fact = await memory.get(ANN, new.fact_id, NOW)
    assert (fact.pinned, fact.verified_at) == (False, None)


async def test_an_artifact_of_less_trust_replaces_none_of_more(memory):
    memory.put_artifact_soon(ANN, new_artifact(data=b"1", trust=NORMAL))
    memory.put_artifact_soon(ANN, new_artifact(data=b"2", trust=LOW, now=NOW + 1))
    kept = await memory.get_artifact(ANN, "report", NOW + 1)
    assert (kept.data, kept.info.trust, kept.info.size_bytes) == (b"1", NORMAL, 1)
    memory.put_artifact_soon(ANN, new_artifact(data=b"33", trust=HIGH, now=NOW + 2))
    kept = await memory.get_artifact(ANN, "report", NOW + 2)
    assert (kept.data, kept.info.size_bytes, kept.info.origin.tool) == (b"33", 2, "report.make")


async def test_forgetting_takes_the_history_along(memory):
    old, new = statement("Q3"), statement("Q4")
    await memory.remember(ANN, old)
    await memory.remember(ANN, new)
    assert await memory.forget(ANN, new.fact_id, NORMAL)
    assert await memory.show(ACME, old.fact_id) == []
    assert await texts(memory, ANN) == []
    assert not await memory.forget(ANN, new.fact_id, NORMAL)


# -- search


async def test_a_fact_is_found_by_any_word_and_the_better_match_comes_first(memory):
    for text in ("Invoices go to Riga", "The invoice address of Ann is in Riga, Latvia", "Ann drinks tea"):
        await memory.remember(ANN, new_fact(text))
    found = await texts(memory, ANN, "ann", "latvia")
    assert found[0].startswith("The invoice address")
    assert set(found) == {"The invoice address of Ann is in Riga, Latvia", "Ann drinks tea"}
    assert await texts(memory, ANN, "oslo") == []


async def test_pinned_comes_first_and_no_words_mean_the_newest(memory):
    facts = [new_fact(f"tea {i}", now=NOW + i) for i in range(4)]
    for new in facts:
        await memory.remember(ANN, new)
    await memory.pin(ANN, facts[1].fact_id, NORMAL, NOW + 9, pinned=True)
    assert await texts(memory, ANN, now=NOW + 9) == ["tea 1", "tea 3", "tea 2", "tea 0"]
    assert (await texts(memory, ANN, "tea", now=NOW + 9))[0] == "tea 1"
    assert await texts(memory, ANN, "tea", now=NOW + 9, limit=2) == ["tea 1", "tea 3"]
    await memory.pin(ANN, facts[1].fact_id, NORMAL, NOW + 9, pinned=False)
    assert (await texts(memory, ANN, now=NOW + 9))[0] == "tea 3"


async def test_a_search_is_narrowed_by_tags_subject_and_trust(memory):
    await memory.remember(ANN, new_fact("tea one", tags=("a", "b"), subject="ann"))
    await memory.remember(ANN, new_fact("tea two", tags=("a",), subject="bob", trust=LOW))
    for words in ((), ("tea",)):
        assert await texts(memory, ANN, *words, tags=("b", "a")) == ["tea one"]
        assert await texts(memory, ANN, *words, subject="bob") == ["tea two"]
        assert await texts(memory, ANN, *words, min_trust=NORMAL) == ["tea one"]
        assert await texts(memory, ANN, *words, tags=("c",)) == []


async def test_the_newest_come_beside_what_was_found(memory):
    for i, text in enumerate(("tea", "coffee", "milk")):
        await memory.remember(ANN, new_fact(text, now=NOW + i))
    hits = await memory.search(ANN, Search(words=("tea",), newest=1), NOW + 3)
    assert [hit.fact.text for hit in hits] == ["tea", "milk"]
    assert hits[0].score != 0.0
    assert hits[1].score == 0.0


@pytest.mark.parametrize("word", ["and", "or", "not", "near", "select", "null", "ünïcödé", "日本", "x" * 200])
async def test_words_are_words(memory, word):
    await memory.remember(ANN, new_fact(f"about {word} here"))
    assert await texts(memory, ANN, word) == [f"about {word} here"]


# -- operators


async def test_operators_act_downwards(memory):
    for scope in (ACME, ANN, CHAT, BOB, GLOBEX):
        await memory.remember(scope, new_fact(f"of {'/'.join(scope.parts)}", fact_id=f"mem_{scope.token}"))
    assert len(await memory.list_facts(ACME, NOW)) == 4
    assert len(await memory.list_facts(ANN, NOW)) == 2
    assert len(await memory.list_facts(CHAT, NOW)) == 1
    assert len(await memory.list_facts(ACME, NOW, limit=2)) == 2
    assert (await memory.stats(ACME, NOW)).active == 4
    assert (await memory.stats(BOB, NOW)).active == 1
    assert not await memory.drop(BOB, f"mem_{CHAT.token}")
    assert not await memory.quarantine(GLOBEX, f"mem_{CHAT.token}")
    assert await memory.show(BOB, f"mem_{CHAT.token}") == []
    assert await memory.drop(ANN, f"mem_{CHAT.token}")
    assert (await memory.stats(ACME, NOW)).active == 3


async def test_quarantine_and_release(memory):
    new = new_fact()
    await memory.remember(ANN, new)
    assert await memory.quarantine(ACME, new.fact_id)
    assert not await memory.quarantine(ACME, new.fact_id)
    assert await held(memory, ANN, new.fact_id) is None
    assert await texts(memory, ANN, "email") == await texts(memory, ANN) == []
    assert not await memory.forget(ANN, new.fact_id, HIGH)
    assert [fact.fact_id for fact in await memory.list_facts(ACME, NOW, state=State.QUARANTINED)] == [new.fact_id]
    assert not await memory.release(ACME, new.fact_id, HIGH, NOW + 60)
    assert not await memory.release(GLOBEX, new.fact_id, HIGH, NOW)
    assert await memory.release(ACME, new.fact_id, HIGH, NOW)
    fact = await memory.get(ANN, new.fact_id, NOW)
    assert (fact.trust, fact.state) == (HIGH, State.ACTIVE)
    assert await texts(memory, ANN, "email") == [new.text]


async def test_a_released_statement_replaces_what_stood(memory):
    old, new = statement("Q3"), statement("Q4", state=State.QUARANTINED, trust=LOW)
    await memory.remember(ANN, old)
    await memory.remember(ANN, new)
    assert await texts(memory, ANN) == ["quarter: Q3"]
    assert await memory.release(ACME, new.fact_id, NORMAL, NOW)
    assert await texts(memory, ANN) == ["quarter: Q4"]


async def test_show_gives_every_version(memory):
    old, new = statement("Q3"), statement("Q4", now=NOW + 1)
    await memory.remember(ANN, old)
    await memory.remember(ANN, new)
    assert [fact.text for fact in await memory.show(ACME, new.fact_id)] == ["quarter: Q4", "quarter: Q3"]


async def test_expired_facts_are_listed_apart(memory):
    await memory.remember(ANN, new_fact("old", ttl_s=1.0))
    await memory.remember(ANN, new_fact("new"))
    assert [fact.text for fact in await memory.list_facts(ACME, NOW + 1)] == ["new"]
    assert [fact.text for fact in await memory.list_facts(ACME, NOW + 1, expired=True)] == ["old"]


async def test_stats_count_each_once(memory):
    await memory.remember(ANN, statement("Q3"))
    await memory.remember(ANN, statement("Q4", verify_by=NOW))
    await memory.remember(ANN, new_fact("quiet", state=State.QUARANTINED))
    await memory.remember(ANN, new_fact("short", ttl_s=1.0))
    pinned = new_fact("äö")
    await memory.remember(ANN, pinned)
    await memory.pin(ANN, pinned.fact_id, NORMAL, NOW, pinned=True)
    memory.put_artifact_soon(ANN, new_artifact(data=b"12345"))
    memory.put_artifact_soon(ANN, new_artifact("short", data=b"1", ttl_s=1.0))
    stats = await memory.stats(ACME, NOW + 1)
    assert (stats.active, stats.quarantined, stats.superseded, stats.expired) == (2, 1, 1, 2)
    assert (stats.pinned, stats.unchecked, stats.artifacts) == (1, 1, 1)
    assert stats.bytes == len("quarter: Q3quarter: Q4quietshort") + 4 + 6
    assert (await memory.stats(GLOBEX, NOW)).active == 0


# -- purge and erasure


async def test_a_purge_takes_what_has_expired_and_nothing_else(memory):
    old, new = new_fact("old", ttl_s=1.0), new_fact("new")
    memory.remember_soon(ANN, old)
    memory.remember_soon(ANN, new)
    memory.remember_soon(GLOBEX, new_fact("theirs", ttl_s=1.0))
    memory.put_artifact_soon(ANN, new_artifact(ttl_s=1.0))
    assert await memory.purge(ACME, PurgePolicy(dry_run=True), NOW + 1) == 2
    assert await memory.purge(ACME, PurgePolicy(), NOW + 1) == 2
    assert await memory.purge(ACME, PurgePolicy(), NOW + 1) == 0
    assert await memory.show(ACME, old.fact_id) == []
    assert await held(memory, ANN, new.fact_id) == "new"
    assert len(await memory.list_facts(GLOBEX, NOW + 1, expired=True)) == 1
    assert await memory.purge_expired(NOW + 1) == 1
    assert await memory.remember(ANN, old) is None


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (PurgePolicy(older_than_s=5), ["t3", "t2", "t1"]),
        (PurgePolicy(keep_newest=1), ["t3", "t0"]),
        (PurgePolicy(keep_newest=0), ["t0"]),
        (PurgePolicy(tags=("even",)), ["t3", "t1"]),
        (PurgePolicy(older_than_s=5, tags=("odd",)), ["t3", "t2", "t1", "t0"]),
        (PurgePolicy(keep_newest=1, tags=("odd",)), ["t3", "t2", "t0"]),
        (PurgePolicy(whole=True), []),
    ],
)
async def test_a_purge_takes_what_its_policy_names(memory, policy, left):
    for i in range(4):
        new = new_fact(f"t{i}", now=NOW + 4 * i, tags=("odd" if i % 2 else "even",))
        await memory.remember(ANN, new)
        if i == 0:
            await memory.pin(ANN, new.fact_id, NORMAL, NOW, pinned=True)
    await memory.remember(BOB, new_fact("bob's"))
    now = NOW + 8
    await memory.purge(ANN, policy, now)
    assert [fact.text for fact in await memory.list_facts(ANN, now)] == left
    assert await texts(memory, BOB, "bob") == ["bob's"]


@pytest.mark.parametrize("policy", [PurgePolicy(keep_newest=-1), PurgePolicy(older_than_s=float("nan"))])
async def test_a_purge_that_makes_no_sense_is_refused(memory, policy):
    with pytest.raises(InvalidArguments):
        await memory.purge(ACME, policy, NOW)


async def test_erasing_a_subject_takes_every_version_and_artifact(memory):
    old, new = statement("secret one", subject="ann"), statement("secret two", subject="ann")
    other = statement("kept", subject="bob")
    for scope, fact in ((ANN, old), (ANN, new), (ANN, other), (GLOBEX, statement("theirs", subject="ann"))):
        await memory.remember(scope, fact)
    await memory.remember(BOB, new_fact("quiet", subject="ann", state=State.QUARANTINED))
    memory.put_artifact_soon(CHAT, new_artifact(subject="ann", data=b'"ann\'s"'))
    erased = await memory.erase(ACME, ["ann"])
    assert len(erased.fact_ids) == 3
    assert erased.artifacts == 1
    assert sorted(erased.texts) == ['"ann\'s"', "quarter: secret one", "quarter: secret two", "quiet"]
    assert erased.run_ids == ("run_1",)
    assert await texts(memory, ANN, "secret", "kept") == ["quarter: kept"]
    assert await memory.list_facts(ACME, NOW, subject="ann") == []
    assert len(await memory.list_facts(GLOBEX, NOW, subject="ann")) == 1
    assert await memory.remember(ANN, new) is None
    assert (await memory.erase(ACME, ["ann", ""])).fact_ids == ()


# -- together


async def test_writers_beside_each_other_lose_nothing(make_store):
    stores = [make_store(), make_store()] if make_store.durable else [make_store()]
    news = [new_fact(f"number {i}") for i in range(60)]
    await asyncio.gather(
        *(stores[i % len(stores)].memory.remember(ANN, new) for i, new in enumerate(news)),
        *(stores[-1].memory.remember(ANN, statement(f"v{i}", now=NOW + i)) for i in range(20)),
    )
    found = await texts(stores[0].memory, ANN, limit=200, now=NOW + 20)
    assert sorted(text for text in found if text.startswith("number")) == sorted(new.text for new in news)
    assert len([text for text in found if text.startswith("quarter")]) == 1


async def test_a_recall_while_purging_finds_all_that_stays(memory):
    for i in range(450):
        memory.remember_soon(ANN, new_fact(f"old {i}", ttl_s=1.0))
    for i in range(5):
        memory.remember_soon(ANN, new_fact(f"new {i}"))
    purge = asyncio.create_task(memory.purge(ACME, PurgePolicy(), NOW + 1))
    while not purge.done():
        assert len(await texts(memory, ANN, "new", "old", now=NOW + 1)) == 5
        await asyncio.sleep(0)
    assert await purge == 450


async def test_what_was_remembered_is_there_after_a_restart(make_store):
    if not make_store.durable:
        pytest.skip("nothing outlives its process in memory")
    store = make_store()
    new = new_fact()
    store.memory.remember_soon(ANN, new)
    store.close()
    assert await held(make_store().memory, ANN, new.fact_id) == new.text


async def test_a_clock_that_is_wrong_purges_nothing_that_is_fresh(memory):
    memory.remember_soon(ANN, new_fact(now=NOW + 400))
    memory.put_artifact_soon(ANN, new_artifact(now=NOW + 400))
    assert await texts(memory, ANN) == []
    assert await memory.purge(ACME, PurgePolicy(), NOW) == await memory.purge_expired(NOW) == 0
    assert (await memory.stats(ACME, NOW)).expired == 0
    assert await memory.list_facts(ACME, NOW, expired=True) == []
    assert len(await texts(memory, ANN, now=NOW + 400)) == 1
