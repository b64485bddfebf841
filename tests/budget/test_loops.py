"""Loops, as a pure machine: each rule of the design and its exceptions."""

from hypothesis import given
from hypothesis import strategies as st

from interlock.budget.loops import REMEMBERED_CALLS, LoopDetector, LoopOptions, Repeated
from interlock.core.calls import Answer
from interlock.core.reasons import StopReason


class Agent:
    """Drives a detector as the guard does: proposes, and settles what was let through."""

    def __init__(self, **options):
        self.detector = LoopDetector(LoopOptions(**options))
        self.batch = 0

    def read(self, key, output="same", batch=None):
        batch = self._batch(batch)
        verdict = self.detector.propose(key, batch, write=False, allowed=False)
        if verdict is None:
            self.detector.settle(key, hash(output), batch, batch, Answer(output, repr(output).encode()))
        elif isinstance(verdict, Repeated):
            return "answered"
        return verdict

    def write(self, key, output="ok", *, allowed=False, executed=True, batch=None):
        batch = self._batch(batch)
        verdict = self.detector.propose(key, batch, write=True, allowed=allowed)
        if verdict is None:
            if executed:
                self.detector.settle_write(key, batch, allowed=allowed)
            self.detector.settle(key, hash(output), batch, batch, Answer(output, b"1"))
        return verdict

    def _batch(self, batch):
        self.batch += 1
        return self.batch if batch is None else batch


def test_the_third_equal_proposal_is_answered_and_the_fifth_stops():
    agent = Agent(no_progress_threshold=None)
    assert [agent.read(1) for _ in range(5)] == [None, None, "answered", "answered", StopReason.LOOP_DETECTED]


def test_the_answer_is_the_last_output_and_names_the_step():
    agent = Agent()
    agent.read(1)
    agent.read(1)
    verdict = agent.detector.propose(1, 99, write=False, allowed=False)
    assert isinstance(verdict, Repeated)
    assert verdict.answer is not None
    assert verdict.answer.value == "same"
    assert verdict.step == 2


def test_a_changed_output_is_no_repeat():
    agent = Agent()
    assert [agent.read(1, output=i) for i in range(20)] == [None] * 20


def test_other_arguments_are_other_calls():
    agent = Agent()
    assert [agent.read(key) for key in range(50)] == [None] * 50


def test_an_executed_write_clears_what_was_read_before_it():
    agent = Agent()
    for key in range(10):
        assert agent.read(7) is None
        assert agent.read(7) is None
        assert agent.write(100 + key) is None


def test_a_write_never_clears_its_own_count():
    agent = Agent(no_progress_threshold=None)
    assert agent.write(1) is None
    replays = [agent.write(1, executed=False) for _ in range(4)]
    # a collapsed write is an ordinary repeat, but only the journal answers it
    assert replays == [None, None, None, StopReason.LOOP_DETECTED]


def test_writes_under_allow_clear_nothing():
    agent = Agent(no_progress_threshold=None)
    agent.read(7)
    agent.read(7)
    agent.write(1, allowed=True)
    assert agent.read(7) == "answered"


def test_a_third_executed_equal_write_with_no_other_write_between_stops():
    agent = Agent(no_progress_threshold=None)
    assert agent.write(1, output=1, allowed=True) is None
    assert agent.read(9) is None
    assert agent.write(1, output=2, allowed=True) is None
    assert agent.write(1, output=3, allowed=True) is StopReason.LOOP_DETECTED


def test_another_executed_write_between_makes_it_no_loop():
    agent = Agent(no_progress_threshold=None)
    for i in range(8):
        assert agent.write(1, output=i, allowed=True) is None
        assert agent.write(100 + i, allowed=True) is None


def test_a_cycle_of_executed_writes_stops_on_its_third_round():
    for period in (2, 3, 4):
        agent = Agent(no_progress_threshold=None)
        verdicts = [agent.write(i % period, allowed=True) for i in range(3 * period)]
        assert verdicts[: 2 * period] == [None] * (2 * period), period
        assert verdicts[2 * period] is StopReason.LOOP_DETECTED, period


def test_a_cycle_whose_outputs_change_is_progress():
    agent = Agent(no_progress_threshold=None)
    for i in range(20):
        assert agent.write(i % 2, output=i, allowed=True) is None


def test_a_cycle_of_reads_is_answered_and_then_stops():
    agent = Agent(no_progress_threshold=None)
    verdicts = [agent.read(i % 2) for i in range(9)]
    assert verdicts[:4] == [None] * 4
    assert verdicts[4:8] == ["answered"] * 4
    assert verdicts[8] is StopReason.LOOP_DETECTED


def test_calls_of_one_batch_do_not_count_against_each_other():
    agent = Agent()
    assert [agent.read(1, batch=1) for _ in range(5)] == [None] * 5
    assert agent.read(1, batch=2) is None
    assert [agent.read(1, batch=3) for _ in range(5)] == ["answered"] * 5
    assert agent.read(1, batch=4) == "answered"
    assert agent.read(1, batch=5) is not None


def test_no_progress_counts_calls_without_a_new_result_and_a_new_one_resets_it():
    agent = Agent(repeated_calls_threshold=None, no_progress_threshold=3)
    assert [agent.read(1) for _ in range(4)] == [None] * 4  # the first is new, three are not
    assert agent.read(1) is StopReason.NO_PROGRESS
    other = Agent(repeated_calls_threshold=None, no_progress_threshold=3)
    for i in range(10):
        assert other.read(1) is None
        assert other.read(1) is None
        assert other.read(100 + i) is None


def test_enumerating_with_short_equal_answers_is_progress():
    agent = Agent()
    assert [agent.read(key, output="[]") for key in range(30)] == [None] * 30


def test_null_switches_a_rule_off():
    agent = Agent(repeated_calls_threshold=None, no_progress_threshold=None)
    assert [agent.read(1) for _ in range(50)] == [None] * 50


def test_memory_is_bounded():
    agent = Agent()
    for key in range(3 * REMEMBERED_CALLS):
        assert agent.read(key) is None
    remembered = (agent.detector._seen.table, agent.detector._older.table)
    assert sum(map(len, remembered)) <= 2 * (REMEMBERED_CALLS + 1)


def test_a_repeat_far_back_is_still_a_repeat():
    agent = Agent(no_progress_threshold=None)
    verdicts = [agent.read(1)]
    for key in range(2, REMEMBERED_CALLS - 2):
        agent.read(key)
    verdicts.append(agent.read(1))
    for key in range(REMEMBERED_CALLS, 2 * REMEMBERED_CALLS - 10):
        agent.read(key)
    verdicts.append(agent.read(1))
    assert verdicts[:2] == [None, None]
    assert verdicts[2] == "answered"


def test_a_failure_that_may_be_proposed_again_is_no_repeat_but_no_progress_either():
    detector = LoopDetector(LoopOptions(no_progress_threshold=6))
    verdicts = []
    for batch in range(10):
        verdicts.append(detector.propose(1, batch, write=True, allowed=False))
        if verdicts[-1] is None:
            detector.settle(1, 5, batch, batch, None, counts=False)
    assert verdicts[:7] == [None] * 7
    assert verdicts[7] is StopReason.NO_PROGRESS


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=60))
def test_only_a_call_with_two_equal_outputs_before_it_is_ever_judged_repeated(calls):
    agent = Agent(no_progress_threshold=None)
    outputs = {}
    for key, output in calls:
        verdict = agent.read(key, output=output)
        if verdict is None:
            outputs.setdefault(key, []).append(output)
        else:
            assert len(outputs[key]) >= 2
            assert outputs[key][-1] == outputs[key][-2]
