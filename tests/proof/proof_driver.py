"""Drives the proofs: forks workers, kills them, redelivers, settles as a person would, and counts."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from proof_remote import ask
from proof_worker import LEASE_TTL_S

from interlock.cli.app import main as interlock_cli
from interlock.config.opening import open_store
from interlock.config.settings import load_settings
from interlock.core.clock import SYSTEM
from interlock.core.reasons import StopReason
from interlock.journal.store import ClaimState, RunState, Settlement

SCALE = int(os.environ.get("INTERLOCK_PROOF_SCALE", "1"))
HERE = Path(__file__).parent
PATIENCE_S = 120.0
LOST, REFUSED = 0.04, 0.02
MOST_ROUNDS = 60
LONGEST_LIFE_S = 10.0
FRESH = 8
# Doubts of each round that are closed on the command line; the others, by what it calls.
TYPED = 3


class Started:
    """A program of ours that lives as long as the block; it says one line when it is ready."""

    def __init__(self, *command, **words):
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **words
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


class Ground:
    """A store, a remote and a nursery of workers: where a proof takes place."""

    def __init__(self, stack, store, seed):
        self.folder = Path(tempfile.mkdtemp(prefix="il-proof-"))  # short: a socket's path has at most 107 bytes
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.store = store
        self.socket = f"{self.folder}/remote"
        self.out = self.folder / "out"
        self.out.touch()
        environ = {**os.environ, "INTERLOCK_KEY": "5e" * 32}
        self.remote = stack.enter_context(Started(HERE / "proof_remote.py", self.socket, seed))
        self.errors = stack.enter_context((self.folder / "errors").open("w+"))
        self.nursery = stack.enter_context(Started(HERE / "proof_worker.py", env=environ, stderr=self.errors))
        assert self.remote.process.stdout.readline() == "ready\n"

    def ask(self, **words):
        return asyncio.run(ask(self.socket, **words))["ok"]

    def fork(self, requests, **words):
        """Start a worker on these requests; return the descriptor on which its end can be awaited, and its number."""
        spec = {"store": self.store, "socket": self.socket, "out": str(self.out), "requests": requests}
        spec |= {"agent": "many", **words}
        self.nursery.process.stdin.write(json.dumps(spec) + "\n")
        self.nursery.process.stdin.flush()
        pid = int(self.nursery.process.stdout.readline())
        with contextlib.suppress(ProcessLookupError):
            return os.pidfd_open(pid), pid
        return None, pid  # it is over already

    def ended_within(self, worker, seconds):
        fd, _ = worker
        return fd is None or bool(select.select([fd], [], [], seconds)[0])

    def bury(self, worker):
        """Wait until a worker is gone for good."""
        assert self.ended_within(worker, PATIENCE_S), "a worker neither ends nor dies"
        if worker[0] is not None:
            os.close(worker[0])

    def kill(self, worker):
        """SIGKILL a worker; return whether it was alive until then."""
        alive = self.send(worker, signal.SIGKILL)
        self.bury(worker)
        return alive

    def let_live(self, worker, chance, most_writes, longest_s=LONGEST_LIFE_S):
        """Wait until a worker has sent some writes, and a moment more: a slow machine is no reason to die young."""
        enough = self.ask(do="received") + chance.randint(0, most_writes)
        until = time.monotonic() + longest_s
        while time.monotonic() < until and self.ask(do="received") < enough:
            if self.ended_within(worker, 0.005):
                return
        self.ended_within(worker, chance.uniform(0.0, 0.03))

    def send(self, worker, what):
        """Send a signal to a worker; return whether there was one to receive it."""
        if self.ended_within(worker, 0):
            return False
        with contextlib.suppress(ProcessLookupError):  # it has ended this very moment
            signal.pidfd_send_signal(worker[0], what)
            return True
        return False

    def said(self):
        """What every request's latest worker has said of it."""
        return {line["request"]: line for line in map(json.loads, self.out.read_text().splitlines())}

    def complaints(self):
        self.errors.flush()
        return (self.folder / "errors").read_text()

    # -- as a person does it

    def type_it(self, *words):
        """Type `interlock … --json`, and return what it printed."""
        printed = io.StringIO()
        before, os.environ["INTERLOCK_KEY"] = os.environ.get("INTERLOCK_KEY"), "5e" * 32
        try:
            with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
                interlock_cli([*words, "--json", "--store", self.store])
        finally:
            os.environ.pop("INTERLOCK_KEY")
            if before is not None:
                os.environ["INTERLOCK_KEY"] = before
        return json.loads(printed.getvalue())

    def doubts(self):
        return self.type_it("doubts")

    def settle(self, doubts):
        """Ask the remote, as a person would, and close each doubt with what it says."""
        verdicts = [(doubt["key"], self.ask(do="find", key=doubt["sent_key"])) for doubt in doubts]
        for key, found in verdicts[:TYPED]:
            verdict = ["--not-performed"] if found is None else ["--done", json.dumps(found)]
            closed = self.type_it("settle", key, *verdict, "--by", "ada", "--reason", "looked at the remote")
            assert closed["state"] == ("failed_clean" if found is None else "done")

        async def close(store):
            for key, found in verdicts[TYPED:]:
                state = ClaimState.FAILED_CLEAN if found is None else ClaimState.DONE
                result = None if found is None else json.dumps(found, separators=(",", ":")).encode()
                assert await store.settle(bytes.fromhex(key), Settlement(state, result, by="ada", reason="looked"))

        self.in_store(close)

    # -- what is there in the end

    def rows(self):
        """Every run, and every claim."""

        async def read(store):
            runs = await store.runs(limit=1_000_000)
            claims = {c.key: c for run in runs for c in await store.claims_of(run.run_id)}
            return runs, list(claims.values())

        return self.in_store(read)

    def in_store(self, work):
        async def opened():
            store = open_store(self.store, load_settings(None), clock=SYSTEM, environ={"INTERLOCK_KEY": "5e" * 32})
            try:
                return await work(store)
            finally:
                store.close()

        return asyncio.run(opened())


@dataclass
class Figures:
    """What a proof counted. Duplicates are effects beyond the first of what was meant once."""

    store: str
    seed: int
    kills: int = 0
    pauses: int = 0
    workers: int = 0
    runs: int = 0
    effects: int = 0
    claims: int = 0
    effects_without_intent: int = 0
    done_without_effect: int = 0
    duplicates_resend: int = 0
    duplicates_natural: int = 0
    duplicates_lookup: int = 0
    duplicates_stop: int = 0
    duplicates_tell: int = 0
    doubts_seen: int = 0
    doubts_that_happened: int = 0
    doubts_left: int = 0
    runs_not_ended: int = 0
    reasons: dict | None = None

    def line(self):
        return json.dumps(asdict(self))


# Of every kill loop of this process.
COUNTED: list[Figures] = []


def total(counted):
    """Return the sums, one for each store; `seed` is how many seeds there were."""
    for store in sorted({figures.store for figures in counted}):
        rows = [asdict(figures) for figures in counted if figures.store == store]
        sums = {name: sum(row[name] for row in rows) for name, value in rows[0].items() if isinstance(value, int)}
        reasons = Counter()
        for row in rows:
            reasons.update(row["reasons"] or {})
        yield Figures(**{**sums, "store": store, "seed": len(rows), "reasons": dict(reasons)})


def count(ground, figures):
    """Hold what the remote counted against what the store says."""
    effects = ground.ask(do="effects")
    runs, claims = ground.rows()
    keys = {claim.sent_key for claim in claims}
    happened = {key for _, _, key, _ in effects}
    figures.runs, figures.effects, figures.claims = len(runs), len(effects), len(claims)
    figures.effects_without_intent = sum(key not in keys for _, _, key, _ in effects)
    figures.done_without_effect = sum(c.state is ClaimState.DONE and c.sent_key not in happened for c in claims)
    figures.runs_not_ended = sum(run.state is not RunState.ENDED for run in runs)
    figures.reasons = dict(Counter(str(run.reason) for run in runs))
    assert set(figures.reasons) <= {str(reason) for reason in StopReason}, figures.reasons
    meant = Counter((tool, what) for tool, what, _, _ in effects)
    for (tool, _), n in meant.items():
        if tool != "natural":
            name = f"duplicates_{tool}"
            setattr(figures, name, getattr(figures, name) + n - 1)
    # Natural: the same object may be put to the same state again, and never to another.
    states = {(what, value) for tool, what, _, value in effects if tool == "natural"}
    figures.duplicates_natural = len(states) - len({what for what, _ in states})
    return effects, runs, claims


class Requests:
    """What is asked for, and delivered again until something has come of it."""

    def __init__(self, ground):
        self._ground = ground
        self.all = {}

    def pending(self, at_once):
        """Return what nothing has come of yet, filled up with new requests."""
        said = self._ground.said()
        pending = [one for one in self.all.items() if one[0] not in said]
        # Some are always new: those of the dead have to wait for their leases.
        for _ in range(max(at_once - len(pending), FRESH)):
            name = f"r{len(self.all):x}"
            self.all[name] = {"ref": name}
            pending.append((name, self.all[name]))
        return pending


def kill_loop(ground, figures, kills, at_once, most_writes):
    """Kill workers at random instants until it has happened often enough; then let everything end."""
    chance = random.Random(figures.seed)
    ground.ask(do="faults", lost=LOST, refused=REFUSED)
    requests = Requests(ground)
    while figures.kills < kills:
        worker = ground.fork(requests.pending(at_once))
        figures.workers += 1
        ground.let_live(worker, chance, most_writes)
        figures.kills += ground.kill(worker)
    let_everything_end(ground, figures, requests)
    return requests.all


def pause_loop(ground, figures, pauses, at_once, most_writes):
    """Stop workers at random instants for longer than a lease lasts, let others take over, and let them go on."""
    chance = random.Random(figures.seed)
    ground.ask(do="faults", lost=LOST, refused=REFUSED)
    requests = Requests(ground)
    while figures.pauses < pauses:
        pending = requests.pending(at_once)
        stopped = ground.fork(pending)
        ground.let_live(stopped, chance, most_writes)
        figures.pauses += ground.send(stopped, signal.SIGSTOP)
        other = ground.fork(pending)
        figures.workers += 2
        # The other one has to wait for the leases; then both are at it.
        ground.ended_within(other, LEASE_TTL_S)
        # It may be stopped with the lock of the file in its hand: then the other one writes nothing before it goes on.
        ground.let_live(other, chance, most_writes, longest_s=1.0)
        ground.send(stopped, signal.SIGCONT)
        ground.bury(stopped)
        ground.bury(other)
    let_everything_end(ground, figures, requests)
    return requests.all


def let_everything_end(ground, figures, requests):
    """Deliver again until each run has ended, or waits for a person; then the person comes."""
    ground.ask(do="faults", lost=0.0, refused=0.0)
    for _ in range(MOST_ROUNDS):
        ground.bury(ground.fork(list(requests.all.items())))
        figures.workers += 1
        doubts = ground.doubts()
        if not doubts:
            break
        settle_all(ground, figures, doubts)
    ground.bury(ground.fork(list(requests.all.items())))
    figures.doubts_left = len(ground.doubts())


def settle_all(ground, figures, doubts):
    happened = {key for _, _, key, _ in ground.ask(do="effects")}
    _, claims = ground.rows()
    listed = {doubt["key"] for doubt in doubts}
    hidden = [c for c in claims if c.state in (ClaimState.IN_DOUBT, ClaimState.INTENT) and c.key.hex() not in listed]
    assert not hidden, f"open claims that `interlock doubts` does not list: {hidden}"
    for doubt in doubts:
        figures.doubts_seen += 1
        figures.doubts_that_happened += doubt["sent_key"] in happened
    ground.settle(doubts)
