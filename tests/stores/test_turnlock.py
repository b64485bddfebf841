"""Turns among processes: one at a time, and whoever has just written stands behind those who wait."""

from __future__ import annotations

import threading

from interlock.stores.turnlock import TurnLock


def test_one_at_a_time(path):
    inside, most, turns = [], [], []

    def take_turns():
        lock = TurnLock(path)
        for _ in range(200):
            lock.acquire()
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            lock.release()
            turns.append(1)
        lock.close()

    threads = [threading.Thread(target=take_turns) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(turns) == 800


def test_whoever_lets_go_cannot_overtake_those_who_wait(path):
    """One that asks again at once, all the time, gets about every second turn, not all of them."""
    greedy_turns, at_turn = 0, []
    done = threading.Event()

    def greedy():
        nonlocal greedy_turns
        lock = TurnLock(path)
        while not done.is_set():
            lock.acquire()
            greedy_turns += 1
            lock.release()
        lock.close()

    thread = threading.Thread(target=greedy)
    thread.start()
    patient = TurnLock(path)
    for _ in range(100):
        before = greedy_turns
        patient.acquire()
        at_turn.append(greedy_turns - before)
        patient.release()
    done.set()
    thread.join()
    patient.close()
    # The median: the interpreter may hold either thread up for a while before it asks at all.
    assert sorted(at_turn)[50] <= 3
