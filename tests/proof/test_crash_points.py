"""A worker dies at each named point of a write of each class, and a second one resumes right.

The points (W0 to W7): before the intent is committed; committed, but not known to be; before the request is sent;
sent; performed, its answer not read; answered, the result not committed; committed, but not known to be; recorded.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from proof_driver import Ground
from proof_worker import CLASSES

from interlock.journal.store import ClaimState

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="counts on pidfd")]

POINTS = ("W0", "W1", "W2", "W3", "W4", "W5", "W6", "W7")
OPEN = {"W1", "W2", "W3", "W4", "W5"}
HAPPENED = {"W3", "W4", "W5", "W6", "W7"}
CASES = [(tool, point) for tool in CLASSES for point in POINTS]
OURS = [case for case in CASES if case[0] in {"resend", "natural", "lookup"}]
PERSONS = [case for case in CASES if case[0] in {"stop", "tell"}]


def seen(ground):
    """What can be seen now, by request: effects at the remote, states they left, the claim, what the worker said."""
    effects = ground.ask(do="effects")
    times = Counter(meant for _, meant, _, _ in effects)
    states = Counter(meant for meant, _ in {(meant, value) for _, meant, _, value in effects})
    claims = {claim.request_id: claim for claim in ground.rows()[1]}
    doubts = {doubt["request_id"]: doubt for doubt in ground.doubts()}
    said = ground.said()
    return {
        (tool, point): SimpleNamespace(
            effects=times[f"{tool}-{point}"],
            states=states[f"{tool}-{point}"],
            claim=claims.get(f"{tool}-{point}"),
            doubt=doubts.get(f"{tool}-{point}"),
            said=said.get(f"{tool}-{point}"),
        )
        for tool, point in CASES
    }


@pytest.fixture(scope="module")
def history(new_store):
    """Forty workers have died, one each; a second one resumes all; a person settles; a third one goes on."""
    with contextlib.ExitStack() as stack:
        ground = Ground(stack, new_store(), 1)
        requests = {case: ("-".join(case), {"ref": "-".join(case), "tool": case[0]}) for case in CASES}
        dying = [ground.fork([requests[case]], die=[case[1], case[0]], agent="one_write") for case in CASES]
        for worker in dying:
            ground.bury(worker)
        dead = seen(ground)
        ground.bury(ground.fork(list(requests.values()), agent="one_write"))
        resumed = seen(ground)
        ground.settle(ground.doubts())
        ground.bury(ground.fork(list(requests.values()), agent="one_write"))
        settled = seen(ground)
        assert ground.complaints() == ""
        yield SimpleNamespace(dead=dead, resumed=resumed, settled=settled)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_it_dies_where_it_should(history, case):
    _, point = case
    found = history.dead[case]
    assert found.said is None
    assert found.effects == (point in HAPPENED)
    state = None if point == "W0" else ClaimState.INTENT if point in OPEN else ClaimState.DONE
    assert (found.claim and found.claim.state) == state
    # What nobody works on any more is a doubt that everybody can see, before anybody resumes.
    assert (found.doubt is not None) == (point in OPEN)


@pytest.mark.parametrize("case", OURS, ids="-".join)
def test_what_can_be_closed_without_a_person_is_closed_by_the_next_worker(history, case):
    tool, point = case
    found = history.resumed[case]
    assert found.said["reason"] == "success"
    assert found.states == 1
    twice = tool == "natural" and point in OPEN & HAPPENED
    assert found.effects == 1 + twice
    assert found.claim.state is ClaimState.DONE
    assert found.claim.sends == (2 if point in OPEN and tool != "lookup" else 1)
    asked = tool == "lookup" and point in OPEN & HAPPENED
    assert found.claim.settled_by == ("lookup" if asked else "tool")
    assert found.said["output"] == ("replayed" if asked or point in {"W6", "W7"} else "success")


@pytest.mark.parametrize("case", PERSONS, ids="-".join)
def test_what_only_a_person_can_close_is_never_sent_again(history, case):
    tool, point = case
    found = history.resumed[case]
    if point in OPEN:
        assert found.effects == (point in HAPPENED)
        assert found.claim.sends == 1
        assert found.doubt is not None
        assert (found.said["reason"], found.said["parked"]) == (
            ("outcome_unknown", True) if tool == "stop" else ("success", False)
        )
    else:
        assert found.effects == 1
        assert found.claim.state is ClaimState.DONE
        assert found.said["reason"] == "success"


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_when_a_person_has_settled_the_doubts_every_run_has_ended_with_one_effect(history, case):
    tool, point = case
    found = history.settled[case]
    assert found.doubt is None
    assert found.said["reason"] == "success"
    # A run whose agent was told, and went on, has ended: settling closes its doubt, and restarts nothing.
    told = tool == "tell" and point in {"W1", "W2"}
    assert found.states == (not told)
    assert found.claim.state is (ClaimState.FAILED_CLEAN if told else ClaimState.DONE)
