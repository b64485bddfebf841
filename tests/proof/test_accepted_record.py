"""Suites, schedules and stories look as they did when somebody last looked: see `accepted_record.py`."""

from __future__ import annotations

from accepted_record import FILE, again, changes, parts, read_accepted, whole_rules

MOST_BYTES = 300_000


def test_everything_is_as_it_was_accepted():
    """After a change that is meant: `python tests/proof/accepted_record.py --accept`, and look at what differs."""
    accepted = read_accepted(FILE)
    found = {name: account for name, account, _ in parts()}
    doubtful = [name for name in found if name.startswith("story ") and found[name] != accepted.get(name)]
    found |= {name: again(name)[0] for name in doubtful}
    differing = changes(accepted, {**whole_rules(), **found}, longest=12)
    assert not differing, "\n".join(differing[:200])


def test_the_record_is_small_and_names_no_place_of_a_machine():
    text = FILE.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert not any(place in text for place in ("/home/", "/tmp/", "/work", "/usr/", "site-packages"))
