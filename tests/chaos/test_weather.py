"""The fault plan: the same seed, the same faults; every kind of fault; nothing after the window."""

from __future__ import annotations

from collections import Counter

import pytest

from interlock.chaos.scenarios import SCENARIOS
from interlock.chaos.weather import EXECUTED, Fault, Weather, weather_of

TITLES = [f"outage (report {i + 1})" for i in range(60)]


def plan(seed: int, project: str = "triage-bare-1", *, requests: int = 6, now_s: float = 10.0) -> list[list[Fault]]:
    weather = Weather(seed, time_scale=1.0)
    weather.article_s(project, 0.0)
    return [[weather.next(project, title, now_s)[0] for _ in range(requests)] for title in TITLES]


def test_equal_seeds_give_equal_faults_and_other_seeds_other_ones():
    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_bare_and_guarded_meet_the_same_faults():
    assert plan(3, "triage-bare-aa") == plan(3, "triage-interlock-bb")


def test_faults_do_not_depend_on_how_requests_interleave():
    one_by_one = plan(4)
    weather = Weather(4, 1.0)
    weather.article_s("triage-x", 0.0)
    rounds = [[weather.next("triage-x", title, 10.0)[0] for title in TITLES] for _ in range(6)]
    assert [list(story) for story in zip(*rounds, strict=True)] == one_by_one


@pytest.mark.parametrize("seed", range(1, 21))
def test_every_seed_loses_about_as_many_answers(seed):
    lost = [sum(fault in EXECUTED for fault in story) for story in plan(seed)]
    assert 42 <= sum(lost) <= 60
    assert sum(n > 0 for n in lost) == 18  # three of ten land on the sick node


def test_numbered_tickets_meet_the_same_faults_whichever_comes_first():
    weather = Weather(5, 1.0)
    weather.article_s("triage-x", 0.0)
    backwards = [[weather.next("triage-x", title, 10.0)[0] for _ in range(6)] for title in reversed(TITLES)]
    assert backwards[::-1] == plan(5)


def test_tickets_without_a_number_are_dealt_as_they_come():
    names = [f"{a}{b}" for a in "abcdef" for b in "abcdefghij"]
    weather = Weather(5, 1.0)
    weather.article_s("triage-x", 0.0)
    assert [[weather.next("triage-x", name, 10.0)[0] for _ in range(6)] for name in names] == plan(5)


def test_every_kind_of_fault_happens():
    tickets = Counter(fault for story in plan(1) for fault in story)
    pages = Counter(fault for story in plan(1, "schema-x") for fault in story)
    assert set(tickets) | set(pages) == set(Fault)


def test_a_story_ends_well():
    assert all(story[-1] is Fault.NONE for story in plan(1, requests=7))


def test_for_two_minutes_nothing_works_and_nothing_is_executed():
    assert {fault for story in plan(1, requests=2, now_s=780.0) for fault in story} == {Fault.BAD_GATEWAY}


def test_after_the_window_all_is_well():
    assert {fault for story in plan(1, now_s=1801.0) for fault in story} == {Fault.NONE}


def test_time_scale_moves_the_windows():
    weather = Weather(1, time_scale=0.01)
    weather.article_s("triage-x", 100.0)
    assert weather.next("triage-x", "a", 100.0 + 7.8)[0] is Fault.BAD_GATEWAY
    assert weather.next("triage-x", "a", 100.0 + 18.1)[0] is Fault.NONE
    assert weather.article_s("triage-x", 101.0) == pytest.approx(100.0)


def test_projects_without_weather_are_left_alone():
    assert weather_of("elsewhere-bare-1") == ()
    assert {fault for story in plan(1, "runaways-x") for fault in story} == {Fault.NONE}


def test_requests_are_numbered_for_each_ticket():
    weather = Weather(1, 1.0)
    numbers = [weather.next("triage-x", title, 0.0)[1] for title in ("a", "b", "a", "a")]
    assert numbers == [1, 1, 2, 3]


@pytest.mark.parametrize("seed", range(1, 6))
def test_arrivals_depend_on_the_seed_alone(seed):
    for scenario in SCENARIOS:
        starts = [(m.name, m.starts_s) for m in scenario.missions(seed)]
        assert starts == [(m.name, m.starts_s) for m in scenario.missions(seed)]
    triage = [m.starts_s for m in SCENARIOS[0].missions(seed)]
    assert triage == sorted(triage)
    assert triage != [m.starts_s for m in SCENARIOS[0].missions(seed + 1)]
    assert 0 <= triage[0] <= triage[-1] < 1800
