"""Effects are counted once for each key, and once for each request without one."""

from __future__ import annotations

import pytest

from interlock.chaos.world import KeyReused, World


def perform(world, subject="outage", *, key=None, payload="p", project="a"):
    return world.perform("ticket", project, subject, payload=payload, key=key, at_s=1.0)


def test_without_a_key_every_request_is_another_effect():
    world = World()
    first, second = perform(world), perform(world)
    assert (first[1], second[1]) == (True, True)
    assert first[0].id != second[0].id
    assert len(world.effects()) == 2


def test_the_same_key_is_the_same_effect():
    world = World()
    first, was_new = perform(world, key="k")
    again, is_new = perform(world, key="k")
    assert (was_new, is_new) == (True, False)
    assert again is first
    assert list(world.effects()) == [first]
    assert world.find("k") is first
    assert world.find("other") is None


def test_a_key_stands_for_one_payload():
    world = World()
    perform(world, key="k", payload="p")
    with pytest.raises(KeyReused):
        perform(world, key="k", payload="q")
    assert len(world.effects()) == 1


def test_effects_of_one_project():
    world = World()
    perform(world, project="a")
    perform(world, project="b")
    assert [e.project for e in world.effects("b")] == ["b"]
    assert world.effects("c") == []
