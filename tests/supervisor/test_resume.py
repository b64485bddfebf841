"""A parked run goes on by replay: what it decided is answered from its record, and nothing is done twice."""

import asyncio
from dataclasses import dataclass

import pytest

import interlock
from interlock import StopReason
from interlock.journal.store import ClaimState, Settlement

MEMORY = "sqlite:///:memory:"


class Scene:
    """A read, a write that loses its first answer, and a model that words everything anew each time."""

    def __init__(self, config=None):
        self.gate = interlock.Interlock(config or {}, store=MEMORY)
        self.asked = self.read = 0
        self.sent = []
        gate = self.gate

        @gate.tool("read", effect="read")
        async def read(n: int) -> int:
            self.read += 1
            return n * 10 + self.read

        @gate.tool("post", effect="write", allow=True)
        async def post(text: str) -> dict:
            self.sent.append(text)
            if len(self.sent) == 1:
                raise TimeoutError
            return {"n": len(self.sent)}

    async def ask(self, prompt):
        self.asked += 1
        return {"text": f"{prompt}, take {self.asked}", "usage": {"cost_usd": 0.01}}

    async def agent(self, run, task):
        first = await run.model(self.ask, "plan")
        seen = await asyncio.gather(*(run.call("read", {"n": n}) for n in (2, 1)))
        denied = await run.observe("nothing", {})
        second = await run.model(self.ask, "write")
        answer = await run.call("post", {"text": second["text"]})
        third = await run.model(self.ask, "conclude")
        return [first["text"], seen, str(denied.reason), answer, third["text"]]

    async def park(self):
        result = await self.gate.run(self.agent, "x", request_id="r1")
        assert result.reason is StopReason.OUTCOME_UNKNOWN
        return result

    async def settle(self, parked, **words):
        key = bytes.fromhex(parked.details["doubts"][0])
        settlement = Settlement(words.pop("state", ClaimState.DONE), by="anna", reason="looked", **words)
        assert await self.gate.house().store.settle(key, settlement)


@pytest.fixture
async def scene():
    scene = Scene()
    yield scene
    await scene.gate.aclose()


async def test_a_settled_doubt_lets_the_run_go_on_without_asking_reading_or_writing_again(scene):
    parked = await scene.park()
    assert (scene.asked, scene.read, len(scene.sent)) == (2, 2, 1)
    await scene.settle(parked, result=b'{"n":7}')
    result = await scene.gate.run(scene.agent, "x", request_id="r1")
    assert result.output == ["plan, take 1", [21, 12], "tool_denied", {"n": 7}, "conclude, take 3"]
    assert (scene.asked, scene.read, len(scene.sent)) == (3, 2, 1)
    assert result.run_id == parked.run_id


async def test_what_was_replayed_counts_once(scene):
    parked = await scene.park()
    await scene.settle(parked, result=b'{"n":7}')
    result = await scene.gate.run(scene.agent, "x", request_id="r1")
    assert result.steps == 3
    assert result.cost_usd == pytest.approx(0.03)
    assert result.elapsed_s >= parked.elapsed_s


async def test_a_doubt_settled_as_not_performed_is_sent_in_the_recorded_words(scene):
    parked = await scene.park()
    await scene.settle(parked, state=ClaimState.FAILED_CLEAN)
    result = await scene.gate.run(scene.agent, "x", request_id="r1")
    assert result.ok
    assert scene.sent == ["write, take 2"] * 2


async def test_an_open_doubt_stays_parked(scene):
    parked = await scene.park()
    again = await scene.gate.run(scene.agent, "x", request_id="r1")
    assert again.parked
    assert again.replayed
    assert again.run_id == parked.run_id
    assert len(scene.sent) == 1


async def test_code_that_calls_something_else_at_a_recorded_place_diverges_and_nothing_is_sent(scene):
    parked = await scene.park()
    await scene.settle(parked, state=ClaimState.FAILED_CLEAN)

    async def changed(run, task):
        await run.model(scene.ask, "plan")
        await run.call("post", {"text": "something else"})

    result = await scene.gate.run(changed, "x", request_id="r1")
    assert result.reason is StopReason.REPLAY_DIVERGED
    assert "model turn 1" in result.details["message"]
    assert len(scene.sent) == 1


async def test_a_bare_loop_is_matched_by_the_order_of_its_calls(scene):
    async def bare(run, task):
        seen = [await run.call("read", {"n": n}) for n in (3, 4)]
        return [*seen, await run.call("post", {"text": "hi"})]

    parked = await scene.gate.run(bare, "x", request_id="r2")
    await scene.settle(parked, result=b'{"n":1}')
    result = await scene.gate.run(bare, "x", request_id="r2")
    assert result.output == [31, 42, {"n": 1}]
    assert scene.read == 2

    async def changed(run, task):
        await run.call("read", {"n": 5})

    other = Scene()
    try:
        parked = await other.gate.run(bare, "x", request_id="r3")
        await other.settle(parked, result=b'{"n":1}')
        diverged = await other.gate.run(changed, "x", request_id="r3")
        assert diverged.reason is StopReason.REPLAY_DIVERGED
        assert other.read == 2
    finally:
        await other.gate.aclose()


async def test_a_run_whose_turns_were_not_recorded_is_not_entered_again(scene):
    async def steps(run, task):
        async with run.step():
            pass
        await run.call("post", {"text": "hi"})

    parked = await scene.gate.run(steps, "x", request_id="r1")
    await scene.settle(parked, result=b'{"n":7}')
    again = await scene.gate.run(steps, "x", request_id="r1")
    assert again.parked
    assert "not_resumable" in again.details
    assert len(scene.sent) == 1


async def test_with_replay_off_nothing_is_kept_and_no_run_is_entered_again():
    scene = Scene({"replay": "off"})
    parked = await scene.park()
    await scene.settle(parked, result=b'{"n":7}')
    again = await scene.gate.run(scene.agent, "x", request_id="r1")
    assert again.parked
    assert scene.asked == 2
    await scene.gate.aclose()


@dataclass
class Reply:
    text: str


async def test_a_reply_of_a_type_is_stored_by_its_type_and_without_one_the_run_says_so(scene):
    async def ask(prompt):
        scene.asked += 1
        return Reply(f"{prompt} {scene.asked}")

    async def typed(run, task):
        reply = await run.model(ask, "a", reply_type=Reply)
        assert isinstance(reply, Reply)
        await run.observe("post", {"text": reply.text})
        async with run.step():
            raise AssertionError("parked before")

    parked = await scene.gate.run(typed, "x", request_id="r1")
    assert parked.parked
    assert "not_resumable" not in parked.details
    await scene.settle(parked, state=ClaimState.FAILED_CLEAN)

    async def finish(run, task):
        reply = await run.model(ask, "a", reply_type=Reply)
        return [reply.text, await run.call("post", {"text": reply.text})]

    result = await scene.gate.run(finish, "x", request_id="r1")
    assert result.output == ["a 1", {"n": 2}]

    async def untyped(run, task):
        await run.model(ask, "a")
        return 1

    with pytest.warns(RuntimeWarning, match="cannot be resumed"):
        result = await scene.gate.run(untyped, "x", request_id="r2")
    assert result.ok
    assert "reply_type" in result.details["not_resumable"]


async def test_children_replay_under_their_own_path(scene):
    async def agent(run, task):
        seen = []
        for name in ("a", "b"):
            async with run.child(name) as child:
                await child.model(scene.ask, name)
                seen.append(await child.call("read", {"n": 1}))
        return [*seen, await run.call("post", {"text": "hi"})]

    parked = await scene.gate.run(agent, "x", request_id="r1")
    await scene.settle(parked, result=b'{"n":1}')
    result = await scene.gate.run(agent, "x", request_id="r1")
    assert result.output == [11, 12, {"n": 1}]
    assert (scene.asked, scene.read) == (2, 2)


async def test_a_kill_applies_at_once_even_while_replaying(scene):
    parked = await scene.park()
    await scene.settle(parked, result=b'{"n":7}')
    await scene.gate.house().store.switches.set("agent", "agent", "kill", reason="stop", actor="anna")
    await scene.gate.house().clock.sleep(0.3)
    result = await scene.gate.run(scene.agent, "x", request_id="r1")
    assert result.reason is StopReason.KILLED


async def test_safe_mode_applies_at_once_even_while_replaying(scene):
    parked = await scene.park()
    await scene.settle(parked, state=ClaimState.FAILED_CLEAN)
    await scene.gate.house().store.switches.set("global", "", "safe_mode", reason="stop", actor="anna")
    await scene.gate.house().clock.sleep(0.3)
    result = await scene.gate.run(scene.agent, "x", request_id="r1")
    assert result.reason is StopReason.TOOL_DENIED
    assert len(scene.sent) == 1


async def test_resume_enters_a_parked_run_though_its_doubt_is_open_and_sends_nothing(scene):
    parked = await scene.park()
    again = await scene.gate.run(scene.agent, "x", request_id="r1", retry="resume")
    assert (again.parked, again.replayed, again.run_id) == (True, False, parked.run_id)
    assert len(scene.sent) == 1


class TestApproval:
    """A run waits parked for a person, whichever of its parts has asked."""

    @pytest.fixture
    async def asking(self):
        gate = interlock.Interlock({"approvals": {"wait_s": 0.0}}, store=MEMORY)
        sent = []

        @gate.tool("refund", effect="write", approval=True)
        async def refund(n: int, *, idempotency_key: str) -> int:
            sent.append(n)
            return n

        gate.sent = sent
        yield gate
        await gate.aclose()

    async def agent(self, run, task):
        if task == "itself":
            return await run.call("refund", {"n": 1})
        async with run.child("part") as child:
            return await child.call("refund", {"n": 1})

    @pytest.mark.parametrize("who", ["itself", "a part of it"])
    async def test_it_goes_on_once_somebody_has_decided_and_not_before(self, asking, who):
        store = asking.house().store
        parked = await asking.run(self.agent, who, request_id="r1")
        assert (parked.reason, parked.parked) == (StopReason.APPROVAL_PENDING, True)
        again = await asking.run(self.agent, who, request_id="r1")
        assert again.replayed
        assert await store.leases.settled(["agent"], None) == []
        (approval,) = await store.approvals.list()
        assert approval.run_id == parked.run_id
        await store.approvals.decide(approval.id, True, "ana")
        assert await store.leases.settled(["agent"], None) == [parked.run_id]
        result = await asking.run(self.agent, who, request_id="r1")
        assert (result.output, result.run_id, asking.sent) == (1, parked.run_id, [1])


class TestWhatIsNoRefusal:
    """Whatever an agent went on from has a place in its record, so that a later attempt does not diverge there."""

    async def test_a_foreign_exception_is_raised_again_as_what_it_was(self):
        scene = Scene({"mode": "observe"})
        asked = []

        class Odd(Exception):
            pass

        @scene.gate.tool("fragile", effect="read")
        async def fragile(kind: str) -> int:
            asked.append(kind)
            raise {"value": ValueError, "odd": Odd}[kind]("gone wrong")

        async def agent(run, task):
            said = []
            await run.model(scene.ask, "plan")
            for kind in ("value", "odd"):
                try:
                    await run.call("fragile", {"kind": kind})
                except Exception as error:
                    said.append(f"{type(error).__name__}: {error}")
            await run.model(scene.ask, "go on")
            await run.call("post", {"text": "hi"})
            return said

        parked = await scene.gate.run(agent, "x", request_id="r1")
        assert parked.reason is StopReason.TOOL_TIMEOUT  # what nothing was refused of ends as it would have
        await again_from_the_start(scene, parked)
        result = await scene.gate.run(agent, "x", request_id="r1")
        assert result.output == ["ValueError: gone wrong", "ToolFailed: Odd: gone wrong"]
        assert asked == ["value", "odd"]
        await scene.gate.aclose()

    async def test_where_nothing_is_refused_a_resumed_run_repeats_no_write_either(self):
        scene = Scene({"mode": "observe"})
        scene.sent.append("so that the next answer is not lost")
        crash = [True]

        async def agent(run, task):
            await run.model(scene.ask, "plan")
            done = [await run.call("post", {"text": "hi"}) for _ in range(2)]  # nothing is collapsed here
            if crash:
                raise RuntimeError
            return [*done, await run.call("post", {"text": "hi"})]

        died = await scene.gate.run(agent, "x", request_id="r1")
        crash.clear()
        await again_from_the_start(scene, died)
        result = await scene.gate.run(agent, "x", request_id="r1")
        assert result.output == [{"n": 2}, {"n": 3}, {"n": 4}]
        assert len(scene.sent) == 4
        await scene.gate.aclose()

    async def test_a_call_that_the_agent_cut_off_is_made_anew_in_its_place(self, scene):
        waited = []

        @scene.gate.tool("slow", effect="read")
        async def slow() -> int:
            waited.append(1)
            if len(waited) == 1:
                await asyncio.Event().wait()
            return 7

        async def agent(run, task):
            await run.model(scene.ask, "plan")
            try:
                seen = await asyncio.wait_for(run.call("slow", {}), 0.05)
            except TimeoutError:
                seen = None
            second = await run.model(scene.ask, "go on")
            return [seen, await run.call("post", {"text": second["text"]})]

        parked = await scene.gate.run(agent, "x", request_id="r1")
        await scene.settle(parked, state=ClaimState.FAILED_CLEAN)
        result = await scene.gate.run(agent, "x", request_id="r1")
        assert result.output == [7, {"n": 2}]

    async def test_a_refusal_for_the_store_is_answered_again_only_where_the_run_went_on_from_it(
        self, scene, monkeypatch
    ):
        store = scene.gate.house().store
        claim, away = store.claim, []

        async def claiming(intent):
            if away:
                raise interlock.errors.StoreUnavailable("away")
            return await claim(intent)

        monkeypatch.setattr(store, "claim", claiming)

        async def agent(run, task):
            await run.model(scene.ask, "plan")
            away.append(1)
            first = await run.observe("post", {"text": "first"})
            away.clear()
            await run.model(scene.ask, "go on")
            return [first.status, (await run.observe("post", {"text": "second"})).status]

        parked = await scene.gate.run(agent, "x", request_id="r1")
        assert parked.reason is StopReason.OUTCOME_UNKNOWN
        await scene.settle(parked, result=b'{"n":1}')
        result = await scene.gate.run(agent, "x", request_id="r1")
        assert result.output == ["refused", "replayed"]
        assert scene.sent == ["second"]

    async def test_a_refusal_for_the_store_in_the_last_turn_is_tried_again(self, scene, monkeypatch):
        store = scene.gate.house().store
        claim, away = store.claim, [1]

        async def claiming(intent):
            if away:
                raise interlock.errors.StoreUnavailable("away")
            return await claim(intent)

        monkeypatch.setattr(store, "claim", claiming)

        async def agent(run, task):
            await run.model(scene.ask, "plan")
            return (await run.call("post", {"text": "x"}))["n"]

        scene.sent.append("so that the next answer is not lost")
        refused = await scene.gate.run(agent, "x", request_id="r1")
        assert refused.reason is StopReason.STORE_UNAVAILABLE
        away.clear()
        await again_from_the_start(scene, refused)
        result = await scene.gate.run(agent, "x", request_id="r1")
        assert (result.output, scene.asked) == (2, 1)

    async def test_an_equal_call_that_is_new_comes_after_those_that_are_on_record(self, scene):
        crash = [True, True]

        async def agent(run, task):
            await run.model(scene.ask, "plan")
            seen = [await run.call("read", {"n": 1})]
            if crash[0]:
                raise RuntimeError
            seen.append(await run.call("read", {"n": 1}))
            if crash[1]:
                raise RuntimeError
            return seen

        for i in range(2):
            died = await scene.gate.run(agent, "x", request_id="r1")
            crash[i] = False
            await again_from_the_start(scene, died)
        result = await scene.gate.run(agent, "x", request_id="r1")
        assert result.output == [11, 12]
        assert scene.read == 2


async def again_from_the_start(scene, ended):
    """Make the store say that the run's worker died just before it wrote the end."""
    store = scene.gate.house().store
    await store._writer.submit(
        lambda db: db.execute(
            "update runs set state = 'running', reason = null, ended_at = null, lease_until_s = 0 where run_id = ?",
            (ended.run_id,),
        )
    )


async def test_a_turn_that_is_recorded_as_a_block_is_answered_from_its_record(scene):
    asked = []

    async def agent(run, task):
        async with run.step(record=dict) as turn:
            if not turn.replayed:
                asked.append(turn.number)
                turn.reply = {"text": f"take {len(asked)}"}
                turn.charge({"cost_usd": 0.01})
            text = turn.reply["text"]
        return [text, await run.call("post", {"text": text})]

    parked = await scene.gate.run(agent, "x", request_id="r1")
    assert (parked.reason, parked.cost_usd) == (StopReason.OUTCOME_UNKNOWN, 0.01)
    await scene.settle(parked, result=b'{"n":7}')
    result = await scene.gate.run(agent, "x", request_id="r1")
    assert (result.output, asked, result.steps, result.cost_usd) == (["take 1", {"n": 7}], [1], 1, 0.01)


async def test_a_failed_model_request_that_is_made_again_is_the_same_turn(scene):
    asked = []

    async def agent(run, task):
        for _ in range(3):
            try:
                async with run.step(record=dict) as turn:
                    if not turn.replayed:
                        asked.append(turn.number)
                        if len(asked) < 3:
                            raise ConnectionError
                        turn.reply = {"take": len(asked)}
                    break
            except ConnectionError:
                continue
        await run.call("post", {"text": str(turn.reply)})
        return turn.reply

    parked = await scene.gate.run(agent, "x", request_id="r1")
    await scene.settle(parked, result=b'{"n":7}')
    result = await scene.gate.run(agent, "x", request_id="r1")
    assert (result.output, asked) == ({"take": 3}, [1, 1, 1])


async def test_a_reply_that_its_type_cannot_write_makes_the_run_one_that_cannot_be_resumed(scene):
    async def agent(run, task):
        async with run.step(record=int) as turn:
            turn.reply = object()

    with pytest.warns(RuntimeWarning, match="cannot be resumed"):
        result = await scene.gate.run(agent, "x", request_id="r1")
    assert "not_resumable" in result.details
