"""Suites, schedules and stories look as they did when somebody last looked: see `accepted_record.py`."""

from __future__ import annotations

from accepted_record import FILE, changes, part, read_accepted, whole

MOST_BYTES = 300_000


def test_everything_is_as_it_was_accepted():
    """After a change that is meant: `python tests/proof/accepted_record.py --accept`, and look at what differs."""
    accepted, found = read_accepted(FILE), whole()
    # Some stories have threads, which a crowded machine may keep waiting for too long.
    doubtful = [name for name in found if name.startswith("story ") and found[name] != accepted.get(name)]
    found |= {name: part(name)[0] for name in doubtful}
    differing = changes(accepted, found, longest=12)
    assert not differing, "\n".join(differing[:200])


def test_the_record_is_small_and_names_no_place_of_a_machine():
    text = FILE.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert not any(place in text for place in ("/home/", "/tmp/", "/work", "/usr/", "site-packages"))
