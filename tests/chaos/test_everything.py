"""The shipped suite `everything` holds, and reaches every stop reason, every kind of fault and every guard."""

from __future__ import annotations

import pytest

from interlock import StopReason
from interlock.chaos.child import find_subject
from interlock.chaos.faults import WORKER_KINDS, Fault, Kind
from interlock.chaos.scene import GUARDS
from interlock.chaos.suite import EVERYTHING, Expected, Suite, Task, faults_of, load_suite, shipped
from interlock.chaos.trying import try_once, try_task
from interlock.core.errors import ConfigError

SUITE = load_suite(EVERYTHING)


def kind_of(label):
    return Kind.HTTP if label.startswith("http_") else Kind(label)


@pytest.mark.process
def test_every_task_holds_and_together_they_reach_everything():
    reasons, kinds, guards = set(), set(), set()
    for task in SUITE.tasks:
        subject = find_subject(task.agent or SUITE.agent, SUITE.gate, SUITE)
        outcome = try_task(subject.agent, subject.gate, SUITE, task)
        assert (outcome.verdict, outcome.why) == ("passed", ""), task.name
        (found,) = outcome.repetitions
        reasons.add(found.reason)
        kinds |= {kind_of(label) for label in found.injected}
        guards |= set(found.guards)
    assert reasons == set(StopReason)
    assert kinds == set(Kind)
    assert guards == set(GUARDS)


def test_the_suite_is_found_by_its_name():
    assert shipped("everything") == EVERYTHING
    assert SUITE.warnings() == []


@pytest.mark.parametrize("task", [t for t in SUITE.tasks if not {f.kind for f in faults_of(t)} & WORKER_KINDS],
                         ids=lambda task: task.name)  # fmt: skip
def test_a_task_of_the_suite_is_one_history(task):
    subject = find_subject(task.agent or SUITE.agent, SUITE.gate, SUITE)
    assert try_once(subject.agent, subject.gate, SUITE, task, seed=3) == try_once(
        subject.agent, subject.gate, SUITE, task, seed=3
    )


class TestWorkers:
    subject = find_subject(SUITE.agent, SUITE.gate, SUITE)

    def tried(self, agent, *faults, expect="any"):
        task = Task("t", Expected(expect), {"do": ["invoice.send"]}, faults=faults)
        return try_once(agent, self.subject.gate, Suite((task,), config=SUITE.config), task, seed=0)

    def test_an_agent_without_a_name_cannot_have_a_worker_killed(self):
        async def nested(run, task):
            return None

        for agent in (nested, lambda run, task: None):
            with pytest.raises(ConfigError, match="another process can import"):
                self.tried(agent, Fault(Kind.WORKER_KILLED))

    @pytest.mark.process
    def test_a_worker_that_is_killed_is_followed_by_another(self):
        found = self.tried(self.subject.agent, Fault(Kind.WORKER_KILLED, times=2, before="send"))
        assert found.injected == {"worker_killed": 1}  # the second worker asks nothing of the remote
        assert (found.reason, found.effects) == ("outcome_unknown", {})

    @pytest.mark.process
    def test_a_worker_that_meets_no_fault_proves_nothing(self):
        found = self.tried(self.subject.agent, Fault(Kind.WORKER_KILLED, tool="never.called"))
        assert found.not_exercised == "no fault was injected"
        assert found.effects == {"invoice.send": 1}
