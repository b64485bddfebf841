"""Writes through the whole funnel: one effect, or a named doubt; effects are counted at the remote."""

import asyncio
import threading

import pytest

import interlock
from interlock import NotPerformed, StopReason


def pays(gate, remote, name="pay", **options):
    """Register a write that the remote dedupes on our key."""

    @gate.tool(name, effect="write", **options)
    async def pay(amount: int, note: str = "", *, idempotency_key: str) -> dict:
        return remote.send(idempotency_key, amount=amount)

    return pay


def posts(gate, remote, name="post", **options):
    """Register a write without a key."""

    @gate.tool(name, effect="write", allow=True, **options)
    async def post(text: str) -> dict:
        return remote.send(None, text=text)

    return post


def once(tool, args):
    async def agent(run, task):
        return await run.call(tool, args)

    return agent


async def test_a_lost_answer_is_resent_with_the_same_key_and_has_one_effect(make_gate, remote):
    gate, world = make_gate(), remote("lost", "lost", "ok")
    pays(gate, world)
    result = await gate.run(once("pay", {"amount": 5}), "x")
    assert result.output == {"id": "1"}
    assert len(world.effects) == 1
    assert world.sends == 3


async def test_without_a_key_an_unknown_is_never_sent_again_and_parks_the_run(make_gate, remote):
    gate, world = make_gate(), remote("lost")
    posts(gate, world)
    result = await gate.run(once("post", {"text": "hi"}), "x", request_id="r1")
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert result.parked
    assert world.sends == 1
    doubts = await gate.house().store.doubts()
    assert [d.tool for d in doubts] == ["post"]
    assert result.details["doubts"] == [doubts[0].key.hex()]


async def test_an_exhausted_resend_is_in_doubt_not_failed(make_gate, remote):
    gate, world = make_gate(), remote("lost", 503, 429)
    pays(gate, world)
    seen = {}

    async def agent(run, task):
        seen["it"] = await run.observe("pay", {"amount": 5})

    result = await gate.run(agent, "x")
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert "may have happened" in seen["it"].for_model
    assert len(await gate.house().store.doubts()) == 1


async def test_a_write_whose_every_attempt_was_not_performed_is_clean_and_may_be_proposed_again(make_gate, remote):
    gate, world = make_gate(), remote(429, 429, 429, "ok")
    pays(gate, world)

    async def agent(run, task):
        first = await run.observe("pay", {"amount": 5})
        assert first.reason is StopReason.TOOL_RATE_LIMIT
        return await run.call("pay", {"amount": 5})

    result = await gate.run(agent, "x")
    assert result.output == {"id": "1"}
    assert not await gate.house().store.doubts()


async def test_not_performed_raised_by_a_tool_proves_it(make_gate):
    gate = make_gate()

    @gate.tool("post", effect="write", allow=True)
    async def post(text: str) -> dict:
        raise NotPerformed("the form was not submitted")

    seen = []

    async def agent(run, task):
        seen.append(await run.observe("post", {"text": "hi"}))
        return "went on"

    result = await gate.run(agent, "x")
    assert result.output == "went on"
    assert seen[0].reason is StopReason.TOOL_FAILED
    assert not await gate.house().store.doubts()


async def test_any_other_exception_of_a_write_is_unknown(make_gate):
    gate = make_gate()

    @gate.tool("post", effect="write", allow=True)
    async def post(text: str) -> dict:
        raise KeyError("id")

    result = await gate.run(once("post", {"text": "hi"}), "x")
    assert result.reason is StopReason.OUTCOME_UNKNOWN


async def test_a_tools_own_reading_of_a_status_wins(make_gate, remote):
    gate, world = make_gate(), remote(409)
    posts(gate, world, outcome={409: "not_performed"})
    result = await gate.run(once("post", {"text": "hi"}), "x")
    assert result.reason is StopReason.TOOL_FAILED
    other, world = make_gate(), remote(409)
    posts(other, world)
    assert (await other.run(once("post", {"text": "hi"}), "x")).reason is StopReason.OUTCOME_UNKNOWN


async def test_equal_writes_collapse_into_one_effect_and_the_second_is_answered_from_the_record(make_gate, remote):
    gate, world = make_gate(), remote()
    pays(gate, world)

    async def agent(run, task):
        first = await run.observe("pay", {"amount": 5})
        second = await run.observe("pay", {"amount": 5})
        assert (first.status, second.status) == ("success", "replayed")
        return [first.value, second.value]

    result = await gate.run(agent, "x")
    assert result.output == [{"id": "1"}, {"id": "1"}]
    assert world.sends == 1


async def test_repeat_allow_makes_each_equal_write_an_effect_of_its_own(make_gate, remote):
    gate, world = make_gate(), remote()
    pays(gate, world, repeat="allow")

    async def agent(run, task):
        return [await run.call("pay", {"amount": 5}) for _ in range(2)]

    result = await gate.run(agent, "x", request_id="r1")
    assert result.output == [{"id": "1"}, {"id": "2"}]
    assert len({e["key"] for e in world.effects}) == 2


async def test_identity_names_the_effect_whatever_the_wording(make_gate, remote):
    gate, world = make_gate(), remote()
    pays(gate, world, identity=("amount",))

    async def agent(run, task):
        return [await run.call("pay", {"amount": 5, "note": note}) for note in ("refund", "the refund")]

    result = await gate.run(agent, "x")
    assert result.output == [{"id": "1"}, {"id": "1"}]
    assert len(world.effects) == 1


async def test_identical_concurrent_writes_share_one_flight(make_gate, remote):
    gate, world = make_gate(), remote(dedupes=False)
    gone = asyncio.Event()

    @gate.tool("pay", effect="write")
    async def pay(amount: int, *, idempotency_key: str) -> dict:
        gone.set()
        await asyncio.sleep(0.01)
        return world.send(idempotency_key, amount=amount)

    async def agent(run, task):
        async with run.step():
            pass
        return await asyncio.gather(*(run.call("pay", {"amount": 5}) for _ in range(5)))

    result = await gate.run(agent, "x")
    assert result.output == [{"id": "1"}] * 5
    assert world.sends == 1


async def test_lookup_closes_a_doubt_that_happened(make_gate, remote):
    gate, world = make_gate(), remote("lost")

    async def find(amount, idempotency_key):
        return world.lookup(idempotency_key)

    @gate.tool("pay", effect="write", lookup=find, on_unknown="lookup")
    async def pay(amount: int, *, idempotency_key: str) -> dict:
        return world.send(idempotency_key, amount=amount)

    result = await gate.run(once("pay", {"amount": 5}), "x")
    assert result.output == {"id": "1"}
    assert world.sends == 1


async def test_a_lookups_no_counts_only_after_settle_s_and_then_the_write_is_sent_again(make_gate, remote):
    gate, world = make_gate(), remote("lost_before", "ok")
    world.script = [502, "ok"]
    asked = []

    async def find(amount, idempotency_key):
        asked.append(world.sends)
        return world.lookup(idempotency_key)

    @gate.tool("pay", effect="write", lookup=find, on_unknown="lookup", settle_s=0.05)
    async def pay(amount: int, *, idempotency_key: str) -> dict:
        return world.send(idempotency_key, amount=amount)

    result = await gate.run(once("pay", {"amount": 5}), "x")
    assert result.output == {"id": "1"}
    assert len(asked) >= 2  # the early no did not count
    assert len(world.effects) == 1


async def test_tell_reports_the_doubt_and_goes_on(make_gate, remote):
    gate, world = make_gate(), remote("timeout")
    posts(gate, world, on_unknown="tell")
    seen = []

    async def agent(run, task):
        seen.append(await run.observe("post", {"text": "make"}))
        async with run.step():
            pass
        return "went on"

    result = await gate.run(agent, "x")
    assert result.output == "went on"
    assert seen[0].reason is StopReason.OUTCOME_UNKNOWN
    assert len(await gate.house().store.doubts()) == 1


async def test_a_write_whose_answer_is_invalid_happened_is_withheld_and_never_sent_again(make_gate, remote):
    gate, world = make_gate(), remote()

    @gate.tool("pay", effect="write", output=int)
    async def pay(amount: int, *, idempotency_key: str) -> dict:
        return world.send(idempotency_key, amount=amount)

    seen = []

    async def agent(run, task):
        seen.extend([await run.observe("pay", {"amount": 5}), await run.observe("pay", {"amount": 5})])
        return "went on"

    result = await gate.run(agent, "x")
    assert result.output == "went on"
    assert [s.reason for s in seen] == [StopReason.TOOL_OUTPUT_INVALID] * 2
    assert all("'1'" not in s.for_model and '"1"' not in s.for_model for s in seen)
    assert world.sends == 1
    assert not await gate.house().store.doubts()
    assert len(await gate.house().store.doubts(unverified=True)) == 1


async def test_a_sync_write_that_outlives_its_timeout_settles_late_and_is_not_sent_again(make_gate, remote):
    gate, world = make_gate(), remote()
    release = threading.Event()

    @gate.tool("post", effect="write", allow=True, timeout_s=0.05)
    def post(text: str) -> dict:
        release.wait(5)
        return world.send(None, text=text)

    result = await gate.run(once("post", {"text": "hi"}), "x", request_id="r1")
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert len(await gate.house().store.doubts()) == 1
    release.set()
    for _ in range(300):
        if not await gate.house().store.doubts():
            break
        await asyncio.sleep(0.01)
    assert not await gate.house().store.doubts()
    again = await gate.run(once("post", {"text": "hi"}), "x", request_id="r1")
    assert again.output == {"id": "1"}
    assert world.sends == 1


async def test_a_settled_doubt_lets_the_parked_run_go_on_without_sending_again(make_gate, remote):
    from interlock.journal.store import ClaimState, Settlement

    gate, world = make_gate(), remote("lost")
    posts(gate, world)
    parked = await gate.run(once("post", {"text": "hi"}), "x", request_id="r1")
    assert parked.parked
    still = await gate.run(once("post", {"text": "hi"}), "x", request_id="r1")
    assert still.parked
    assert still.replayed
    key = bytes.fromhex(parked.details["doubts"][0])
    store = gate.house().store
    await store.settle(key, Settlement(ClaimState.DONE, result=b'{"id":"1"}', by="anna", reason="seen in the UI"))
    resumed = await gate.run(once("post", {"text": "hi"}), "x", request_id="r1")
    assert resumed.output == {"id": "1"}
    assert resumed.run_id == parked.run_id
    assert world.sends == 1


async def test_a_cancelled_run_lets_its_write_finish(make_gate, remote):
    gate, world = make_gate(), remote()
    gone = asyncio.Event()

    @gate.tool("pay", effect="write")
    async def pay(amount: int, *, idempotency_key: str) -> dict:
        gone.set()
        await asyncio.sleep(0.05)
        return world.send(idempotency_key, amount=amount)

    task = asyncio.create_task(gate.run(once("pay", {"amount": 5}), "x"))
    await gone.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gate.aclose()
    assert len(world.effects) == 1


async def test_a_write_always_gets_its_full_timeout_whatever_the_runs_deadline(make_gate, remote):
    gate, world = make_gate(), remote()

    @gate.tool("pay", effect="write", timeout_s=5)
    async def pay(amount: int, *, idempotency_key: str) -> dict:
        await asyncio.sleep(0.1)
        return world.send(idempotency_key, amount=amount)

    result = await gate.run(once("pay", {"amount": 5}), "x", budgets={"max_seconds": 0.05})
    assert len(world.effects) == 1
    assert not await gate.house().store.doubts()
    assert result.reason is StopReason.TIME_BUDGET
    assert result.details["partial"] == {"id": "1"}


async def test_safe_mode_refuses_every_write_even_if_listed(make_gate, remote):
    world = remote()
    gate = make_gate({"safe_mode": {"enabled": True, "allowed_tools": ["pay", "read"]}})
    pays(gate, world)

    @gate.tool("read", effect="read")
    async def read() -> int:
        return 1

    async def agent(run, task):
        refused = await run.observe("pay", {"amount": 5})
        assert refused.reason is StopReason.TOOL_DENIED
        assert refused.error.details["policy"] == "safe_mode"
        return await run.call("read")

    assert (await gate.run(agent, "x")).output == 1
    assert world.sends == 0


async def test_a_write_that_nobody_can_close_is_not_permitted_without_saying_so(make_gate, remote):
    gate, world = make_gate(), remote()

    @gate.tool("post", effect="write")
    async def post(text: str) -> dict:
        return world.send(None, text=text)

    result = await gate.run(once("post", {"text": "hi"}), "x")
    assert result.reason is StopReason.TOOL_DENIED
    assert world.sends == 0


async def test_identity_that_names_no_argument_is_refused_at_registration(make_gate, remote):
    with pytest.raises(interlock.ConfigError, match="identity"):
        pays(make_gate(), remote(), identity=("order",))


async def test_approval_by_a_callable(make_gate, remote):
    gate, world = make_gate(), remote()
    asked = []

    def approver(call):
        asked.append(call.args["amount"])
        return call.args["amount"] < 100

    pays(gate, world, approval=approver)

    async def agent(run, task):
        small = await run.call("pay", {"amount": 5})
        large = await run.observe("pay", {"amount": 500})
        assert large.reason is StopReason.APPROVAL_DENIED
        again = await run.call("pay", {"amount": 5})  # done: nobody is asked again
        return [small, again]

    result = await gate.run(agent, "x")
    assert result.output == [{"id": "1"}, {"id": "1"}]
    assert asked == [5, 500]


async def test_approval_in_the_store_is_decided_from_elsewhere_and_used_once(make_gate, remote):
    gate, world = make_gate({"approvals": {"wait_s": 5}}), remote()
    pays(gate, world, approval=True)
    approvals = gate.house().store.approvals

    async def anna():
        while True:
            for row in await approvals.list():
                await approvals.decide(row.id, True, "anna", "fine")
                return row
            await asyncio.sleep(0.01)

    decided, result = await asyncio.gather(anna(), gate.run(once("pay", {"amount": 5}), "x"))
    assert result.output == {"id": "1"}
    assert "pay" in decided.rendered
    assert (await approvals.list(state=None))[0].state == "consumed"


async def test_an_undecided_approval_parks_the_run_and_a_yes_lets_it_go_on(make_gate, remote):
    gate, world = make_gate({"approvals": {"wait_s": 0}}), remote()
    pays(gate, world, approval=True)
    parked = await gate.run(once("pay", {"amount": 5}), "x", request_id="r1")
    assert parked.reason is StopReason.APPROVAL_PENDING
    assert parked.parked
    assert world.sends == 0
    approvals = gate.house().store.approvals
    (row,) = await approvals.list()
    await approvals.decide(row.id, True, "anna", "fine")
    result = await gate.run(once("pay", {"amount": 5}), "x", request_id="r1")
    assert result.output == {"id": "1"}
    assert len(world.effects) == 1


async def test_two_tenants_writes_are_two_effects(make_gate, remote):
    gate, world = make_gate(), remote()
    pays(gate, world)
    results = await asyncio.gather(
        *(gate.run(once("pay", {"amount": 5}), "x", tenant_id=t, request_id="r1") for t in ("a", "b"))
    )
    assert {r.output["id"] for r in results} == {"1", "2"}


async def test_a_fresh_plan_that_words_an_earlier_write_differently_is_refused(make_gate, remote):
    gate, world = make_gate(), remote()
    pays(gate, world)
    pays(gate, world, name="refund", identity=("amount",))

    def plan(note):
        async def agent(run, task):
            paid = await run.observe("pay", {"amount": 5, "note": note})
            refunded = await run.call("refund", {"amount": 5, "note": note})
            return [paid.reason, refunded]

        return agent

    await gate.run(plan("lunch"), "x", request_id="r1")
    again = await gate.run(plan("the lunch"), "x", request_id="r1", retry=True)
    assert again.output[0] == StopReason.TOOL_DENIED
    assert again.output[1] == {"id": "2"}  # named by its identity: the same effect, answered from the record
    assert len(world.effects) == 2


async def test_a_fresh_plan_may_use_a_tool_several_times_itself(make_gate, remote):
    gate, world = make_gate(), remote()
    pays(gate, world)

    async def agent(run, task):
        return [await run.call("pay", {"amount": n}) for n in (1, 2)]

    async def nothing(run, task):
        return "planned nothing"

    await gate.run(nothing, "x", request_id="r1")
    again = await gate.run(agent, "x", request_id="r1", retry=True)
    assert again.output == [{"id": "1"}, {"id": "2"}]


async def test_an_invalid_answer_of_a_tool_inside_a_write_says_nothing_of_the_write(make_gate, remote):
    gate, world = make_gate(), remote()

    @gate.tool("inner", effect="read", output=int)
    async def inner() -> str:
        return "no number"

    @gate.tool("outer", effect="write", allow=True)
    async def outer(text: str) -> dict:
        world.send(None, text=text)
        await inner()
        return {}

    result = await gate.run(once("outer", {"text": "hi"}), "x")
    assert result.reason is StopReason.OUTCOME_UNKNOWN
    assert [d.tool for d in await gate.house().store.doubts()] == ["outer"]
