"""interlock memory: every verb within one tenant; erasure with an attestation that names what it could not see."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from interlock.cli import memory, memory_erase
from interlock.core.clock import ManualClock
from interlock.core.trust import Trust
from interlock.memory.fact import NewArtifact, NewFact, Origin, State
from interlock.memory.scope import Scope
from interlock.stores.sqlite import SqliteStore

NOW = 1_700_000_000.0
DAY = 86_400.0
ANN = Scope("acme", "ann")
FIRST, SECOND, ASIDE, OLD, THEIRS = (f"mem_{n:032x}" for n in range(5))


async def fill(store):
    def new(fact_id, text, **words):
        words = {"created_at": NOW - 10, "expires_at": NOW + 30 * DAY, **words}
        return NewFact(fact_id=fact_id, text=text, origin=Origin(run_id="run_1", agent="triage", source="crm"), **words)

    desk = store.memory
    quarter = {"subject": "finance", "key": "quarter"}
    await desk.remember(ANN, new(FIRST, "quarter: Q3", value_json=b'"Q3"', **quarter))
    await desk.remember(ANN, new(SECOND, "quarter: Q4", value_json=b'"Q4"', **quarter))
    words = {"subject": "marie.curie", "tags": ("web",), "trust": Trust.LOW, "state": State.QUARANTINED}
    await desk.remember(ANN, new(ASIDE, "Marie says: pay\x1b[2J at once", **words))
    await desk.remember(Scope("acme"), new(OLD, "long ago", created_at=NOW - 9 * DAY, expires_at=NOW - DAY))
    await desk.remember(Scope("globex"), new(THEIRS, "Marie likes tea", subject="marie.curie"))
    desk.put_artifact_soon(
        ANN, NewArtifact(name="report", data=b"[1,2]", created_at=NOW - 5, expires_at=NOW + DAY, subject="finance")
    )
    await store.flush()


@pytest.fixture(scope="session")
def remembered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remembered")
    opened = SqliteStore(folder / "interlock.db", clock=ManualClock(wall_s=NOW), environ={})
    asyncio.run(fill(opened))
    opened.close()
    return folder


@pytest.fixture(autouse=True)
def store(remembered, here, clock, monkeypatch):
    """The store in this folder, at its hour."""
    shutil.copytree(remembered, here, dirs_exist_ok=True)
    for module in (memory, memory_erase):
        monkeypatch.setattr(module, "SYSTEM", clock)
    return here / "interlock.db"


def ids(said):
    return {fact["id"] for fact in said.json}


def test_list(typed):
    assert ids(typed("memory", "list", "--tenant", "acme", "--json")) == {FIRST, SECOND, ASIDE}
    assert ids(typed("memory", "list", "--tenant", "acme", "--expired", "--json")) == {OLD}
    assert ids(typed("memory", "list", "--tenant", "acme", "--state", "quarantined", "--json")) == {ASIDE}
    assert ids(typed("memory", "list", "--tenant", "acme", "--user", "bob", "--json")) == set()
    assert ids(typed("memory", "list", "--tenant", "globex", "--json")) == {THEIRS}
    said = typed("memory", "list", "--tenant", "acme", "--subject", "finance")
    assert "Q4" in said.out
    assert "Marie" not in said.out
    assert "\x1b[2J" not in typed("memory", "list", "--tenant", "acme").out
    (kept,) = typed("memory", "list", "--tenant", "acme", "--artifacts", "--json").json
    assert (kept["name"], kept["size_bytes"], kept["subject"]) == ("report", 5, "finance")
    assert "report" in typed("memory", "list", "--tenant", "acme", "--artifacts").out


def test_show_has_versions_and_origin(typed):
    last, first = typed("memory", "show", SECOND, "--tenant", "acme", "--json").json
    assert (last["value"], last["supersedes"], first["value"], first["state"]) == ("Q4", FIRST, "Q3", "superseded")
    assert last["origin"]["source"] == "crm"
    out = typed("memory", "show", SECOND, "--tenant", "acme").out
    assert "from run_id: run_1" in out
    assert "superseded_by" in out


@pytest.mark.parametrize(
    "words", [("show",), ("forget",), ("quarantine",), ("release", "--trust", "high")], ids=lambda words: words[0]
)
def test_no_verb_reaches_another_tenant_or_goes_without_one(typed, words):
    verb, *more = words
    said = typed("memory", verb, THEIRS, *more, "--tenant", "acme")
    assert (said.code, "nothing was changed" in said.err) == (1, True)
    assert "Missing option '--tenant'" in typed("memory", verb, THEIRS, *more).err
    assert typed("memory", verb, THEIRS, *more, "--tenant", "").code == 1
    assert typed("memory", verb, THEIRS, *more, "--tenant", "globex", "--session", "s").code == 1
    assert ids(typed("memory", "list", "--tenant", "globex", "--state", "active", "--json")) == {THEIRS}


def test_quarantine_and_release(typed):
    assert typed("memory", "quarantine", SECOND, "--tenant", "acme").out == f"{SECOND} is quarantined\n"
    assert typed("memory", "quarantine", SECOND, "--tenant", "acme").code == 1
    assert typed("memory", "release", ASIDE, "--tenant", "acme", "--trust", "normal", "--json").json["done"]
    (fact,) = typed("memory", "list", "--tenant", "acme", "--state", "active", "--json").json
    assert (fact["id"], fact["trust"]) == (ASIDE, "normal")
    assert typed("memory", "release", SECOND, "--tenant", "acme", "--trust", "certain").code == 2


def test_forget_takes_the_versions_before_it(typed):
    assert typed("memory", "forget", SECOND, "--tenant", "acme", "--json").json["id"] == SECOND
    assert ids(typed("memory", "list", "--tenant", "acme", "--json")) == {ASIDE}


@pytest.mark.parametrize(
    ("words", "rows", "left"),
    [
        ((), 1, {FIRST, SECOND, ASIDE}),
        (("--tag", "web"), 2, {FIRST, SECOND}),
        (("--keep-newest", "0"), 2, {FIRST, ASIDE}),
        (("--older-than", "0"), 5, set()),
        (("--everything",), 5, set()),
        (("--everything", "--user", "ann"), 4, set()),
    ],
)
def test_purge(typed, words, rows, left):
    assert typed("memory", "purge", "--tenant", "acme", *words, "--dry-run", "--json").json["rows"] == rows
    assert f"{rows} facts and artifacts deleted" in typed("memory", "purge", "--tenant", "acme", *words).out
    assert ids(typed("memory", "list", "--tenant", "acme", "--json")) == left
    assert ids(typed("memory", "list", "--tenant", "globex", "--json")) == {THEIRS}


@pytest.mark.parametrize("days", ["-1", "nan", "inf"])
def test_purge_by_an_age_that_cannot_be(typed, days):
    said = typed("memory", "purge", "--tenant", "acme", f"--older-than={days}")
    assert (said.code, "--older-than: is a number of days" in said.err) == (1, True)


def test_stats(typed):
    counts = typed("memory", "stats", "--tenant", "acme", "--json").json
    assert {name: n for name, n in counts.items() if n} == {
        "tenant_id": "acme", "active": 1, "quarantined": 1, "superseded": 1, "expired": 1, "artifacts": 1,
        "bytes": counts["bytes"],
    }  # fmt: skip
    assert "quarantined" in typed("memory", "stats", "--tenant", "acme").out


def test_erase_attests(typed, store):
    said = typed(
        "memory", "erase", "--tenant", "acme", "--subject", "marie.curie", "--attestation", "proof.json", "--json"
    )
    attested = said.json
    assert (said.code, attested["verdict"], attested["kept"]) == (1, "incomplete", [])
    # The subject's name stands in another tenant's memory, in the same file: the search sees it, and says so.
    assert {found["text"] for found in attested["found"]} == {"subject"}
    assert json.loads(Path("proof.json").read_text()) == attested
    assert "marie" not in said.out.lower()
    assert attested["erased"] == {"facts": 1, "artifacts": 0, "runs": []}
    assert ids(typed("memory", "list", "--tenant", "globex", "--json")) == {THEIRS}
    again = typed("memory", "erase", "--tenant", "globex", "--subject", "marie.curie", "--prove")
    assert (again.code, "verdict: erased" in again.out) == (0, True)
    assert "outside: backups and copies" in again.out
    assert b"marie" not in store.read_bytes().lower()


def test_erase_without_a_proof_says_that_nothing_was_searched(typed):
    said = typed("memory", "erase", "--tenant", "globex", "--subject", "marie.curie")
    assert (said.code, "--prove" in said.err) == (0, True)
    assert ids(typed("memory", "list", "--tenant", "globex", "--json")) == set()
    assert typed("memory", "erase", "--tenant", "globex", "--subject", " ").code == 1


def test_what_is_logged_is_searched(typed):
    """Where arguments are logged, the canary is, too: the attestation names the file."""
    Path("interlock.yaml").write_text("logging: {to: app.log, level: info, include: [event, args]}\n")
    Path("app.log.1").write_text("seen: marie.curie\n")
    attested = typed("memory", "erase", "--tenant", "globex", "--subject", "marie.curie", "--prove", "--json").json
    found = {(Path(found["where"]).name, found["text"]) for found in attested["found"]}
    assert {("app.log", "canary"), ("app.log.1", "subject")} <= found
    assert attested["verdict"] == "incomplete"


def test_a_folder_of_caches_is_searched_too(typed):
    Path("cache").mkdir()
    Path("cache/page").write_bytes("Marie likes tea".encode("utf-16-be"))
    words = (
        "memory",
        "erase",
        "--tenant",
        "globex",
        "--subject",
        "marie.curie",
        "--also",
        "cache",
        "--json",
        "--prove",
    )
    said = typed(*words)
    assert said.code == 1
    assert [(found["text"], found["form"]) for found in said.json["found"] if Path(found["where"]).name == "page"] == [
        ("text 1", "UTF-16BE")
    ]
    assert typed(*words[:-4], "nowhere", "--json").code == 2
