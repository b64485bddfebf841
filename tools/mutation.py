"""Mutation testing of the guards by the chaos suites: which small faults of ours do users' own means find?

A mutant is killed by a promise if a task of `everything` or of the golden tasks no longer passes, if a fault schedule
or a story of `tests/proof` breaks what it promises, if it hangs, or if it cannot be imported; and by the accepted
record, if all of that holds and something looks otherwise than in `tests/proof/accepted_record.txt`, which CI holds the
code to. Nothing else counts: no unit test is run. Each mutant is tried in a forked process that imports Interlock with
one module changed; one of a line that nothing reaches lives without a trial. All chance is seeded.

    python tools/mutation.py [--sample N] [--seed N] [--jobs N] [--schedules N] [--only WORD] [--json FILE]
        [--packages NAME ...] [--quick | --promises]

`--quick` ends a trial at the first difference, and does not ask whether a promise alone would have told; `--promises`
asks for nothing else.

Without `--sample` every mutant is tried, which takes hours. Exit 1 if less than `--goal` percent are killed.
Mutants that change nothing anybody could see are named, with the reason, in `tools/mutants_spared.txt`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

# Imported before the forks, so that a mutant pays for Interlock alone.
import aiohttp  # noqa: F401
import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401
import genai_prices  # noqa: F401
import httpx  # noqa: F401
import hypothesis  # noqa: F401
import orjson  # noqa: F401
import pydantic.main  # noqa: F401
import requests  # noqa: F401
import typer  # noqa: F401
import yaml  # noqa: F401
from mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "interlock"
PACKAGES = ("budget", "journal", "resilience", "policy")
SPARED = Path(__file__).with_name("mutants_spared.txt")
DEADLINE_S = 90.0
ALIVE, KILLED, DIFFERS = 0, 7, 8
REACHED = "reached"


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        return self._code


class _Finder:
    """Finds one module of ours with other code in it."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self._name, self._path, self._code = name, path, code

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(
            name, self._path, loader=_Loader(name, str(self._path), self._code)
        )


def put_in(mutant: Mutant) -> None:
    """Let the mutant be imported in place of its module."""
    code = compile(mutant.tree(SOURCE), str(SOURCE / mutant.path), "exec")
    name = ".".join(("interlock", *mutant.path.with_suffix("").parts)).removesuffix(".__init__")
    sys.meta_path.insert(0, _Finder(name, SOURCE / mutant.path, code))


def first_failure(names: Sequence[str], *, quick: bool, held: bool) -> tuple[str, str]:
    """Return the first promise that is broken, and the first difference to the accepted record, or "".

    Args:
        names: Of the parts that may tell. quick: One of both is enough. held: Compare with the record at all.
    """
    from accepted_record import FILE, part  # noqa: PLC0415 - it imports what may be mutated

    from interlock.chaos.accepted import read_accepted  # noqa: PLC0415

    accepted = read_accepted(FILE) if held else {}
    differs = ""
    for name in names:
        account, wrong = part(name)
        if name.startswith("story ") and (wrong or accepted.get(name, account) != account):
            account, wrong = part(name)  # a thread that was late proves nothing
        if wrong:
            return f"{name}: {wrong[0]}", differs
        if not differs:
            differs = _difference(name, account, accepted)
        if differs and quick:
            break
    return "", differs


def _difference(name: str, account: Sequence[str], accepted: Mapping[str, Sequence[str]]) -> str:
    from interlock.chaos.accepted import changes  # noqa: PLC0415

    if name not in accepted:
        return ""  # a schedule beyond those that are held
    lines = changes({name: accepted[name]}, {name: account}, longest=6)
    return "\n".join(lines)


class Fate(NamedTuple):
    """What became of a mutant: killed by a `promise`, by the `record`, or "" where it lives; and what told."""

    killed_by: str
    said: str


@dataclass
class Trial:
    """A mutant under way in a process of its own."""

    mutant: Mutant | None
    pid: int
    said: Path
    until_s: float


@dataclass
class Reach:
    """Which lines the parts run, and what that takes.

    Attributes:
        at_import: Lines that are run before any part is. by_part: those that each part runs. took_s: seconds of each.
    """

    at_import: set[tuple[str, int]]
    by_part: dict[str, set[tuple[str, int]]]
    took_s: dict[str, float]

    def parts_for(self, mutant: Mutant) -> list[str]:
        """Return the parts that can tell this mutant, the quickest first: all of them if importing runs its line."""
        lines = {(str(mutant.path), line) for line in mutant.lines}
        if lines & self.at_import:
            return list(self.by_part)
        return sorted((name for name, run in self.by_part.items() if run & lines), key=lambda name: self.took_s[name])


class Tracer:
    """Notes every line of the packages that is run, into the set that is there at present."""

    def __init__(self) -> None:
        self.lines: set[tuple[str, int]] = set()
        self._ours = tuple(str(SOURCE / package) for package in PACKAGES)
        self._start = len(str(SOURCE)) + 1

    def trace(self, frame: FrameType, _event: str, _arg: object) -> Any:
        """For `sys.settrace`."""
        return self._line(frame, "", None) if frame.f_code.co_filename.startswith(self._ours) else None

    def _line(self, frame: FrameType, _event: str, _arg: object) -> Any:
        self.lines.add((frame.f_code.co_filename[self._start :], frame.f_lineno))
        return self._line


def reach(schedules: int) -> Reach:
    """Return which lines each part runs; what is slow while it is watched is not judged."""
    tracer = Tracer()
    threading.settrace(tracer.trace)
    sys.settrace(tracer.trace)
    from accepted_record import names, part  # noqa: PLC0415 - it imports what is watched

    found = Reach(tracer.lines, {}, {})
    for name in names(schedules):
        tracer.lines = found.by_part[name] = set()
        began_s = time.monotonic()
        part(name)
        found.took_s[name] = time.monotonic() - began_s
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    return found


def start(mutant: Mutant | None, names: Sequence[str], options: argparse.Namespace, folder: Path) -> Trial:
    """Fork, and try the mutant with these parts; or, without one, note which lines each part reaches."""
    said = folder / f"{time.monotonic_ns()}.txt"
    pid = os.fork()
    if pid:
        return Trial(mutant, pid, said, time.monotonic() + DEADLINE_S)
    os.setsid()
    wrong = differs = ""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "proof"), str(ROOT / "tests")]
        if mutant is not None:
            put_in(mutant)
        if names or mutant is not None:
            wrong, differs = first_failure(names, quick=options.quick, held=not options.promises)
        else:
            (folder / REACHED).write_bytes(pickle.dumps(reach(options.schedules)))
    except BaseException:
        wrong = traceback.format_exc(limit=-3)
    said.write_text(wrong or differs, encoding="utf-8")
    os._exit(KILLED if wrong else DIFFERS if differs else ALIVE)


def ended(trial: Trial) -> Fate | None:
    """Return what became of the mutant; None while it is tried."""
    pid, status = os.waitpid(trial.pid, os.WNOHANG)
    if not pid:
        if time.monotonic() < trial.until_s:
            return None
        os.killpg(trial.pid, signal.SIGKILL)
        os.waitpid(trial.pid, 0)
        return Fate("promise", f"it hung: not done within {DEADLINE_S:g} s")
    text = trial.said.read_text(encoding="utf-8") if trial.said.exists() else f"its process ended with {status}"
    how = {ALIVE: "", DIFFERS: "record"}.get(os.waitstatus_to_exitcode(status), "promise")
    return Fate(how, text.strip())


def tried(mutants: Mapping[Mutant, Sequence[str]], options: argparse.Namespace) -> dict[Mutant, Fate]:
    """Try mutants, each with its parts, some at once; print each that lives."""
    found: dict[Mutant, Fate] = {}
    waiting, under_way = list(reversed(mutants.items())), []
    with tempfile.TemporaryDirectory(prefix="interlock-mutants-") as folder:
        try:
            while waiting or under_way:
                while waiting and len(under_way) < options.jobs:
                    under_way.append(start(*waiting.pop(), options, Path(folder)))
                time.sleep(0.02)
                for trial in list(under_way):
                    end = ended(trial)
                    if end is None:
                        continue
                    under_way.remove(trial)
                    found[trial.mutant] = end
                    if not end.killed_by:
                        print(f"[{len(found)}/{len(mutants)}] ALIVE {trial.mutant}", flush=True)
                    elif len(found) % 25 == 0:
                        print(f"[{len(found)}/{len(mutants)}]", file=sys.stderr, flush=True)
        finally:
            for trial in under_way:
                os.killpg(trial.pid, signal.SIGKILL)
                os.waitpid(trial.pid, 0)
    return found


def chosen(packages: Sequence[str], only: str, sample: int | None, seed: int) -> list[Mutant]:
    """Return the mutants to try: all, or a sample that the seed draws, in their order."""
    files = [path.relative_to(SOURCE) for package in packages for path in sorted((SOURCE / package).glob("*.py"))]
    every = [mutant for path in files for mutant in mutants_of(SOURCE, path) if only in str(mutant)]
    if sample is None or sample >= len(every):
        return every
    drawn = set(random.Random(seed).sample(range(len(every)), sample))
    return [mutant for number, mutant in enumerate(every) if number in drawn]


def spared() -> dict[str, str]:
    """Return the mutants that nobody could tell from the original, as `file: source line: change`, and why."""
    lines = SPARED.read_text(encoding="utf-8").splitlines() if SPARED.exists() else []
    pairs = (line.split(" # ", 1) for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): why.strip() for name, why in pairs}


def named(mutant: Mutant) -> str:
    """Return a mutant's name as the list of spared ones has it: by the text of its line, which moves with it."""
    text = (SOURCE / mutant.path).read_text(encoding="utf-8").splitlines()[mutant.line - 1].split("  #")[0].strip()
    return f"{mutant.path}: {text}: {mutant.what}"


def main(words: list[str]) -> int:
    """Try mutants and print the share of those that were killed, by package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1)))
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="one reason is enough for each")
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=PACKAGES)
    parser.add_argument("--only", default="", help="mutants whose name has this word")
    parser.add_argument("--promises", action="store_true", help="compare nothing with the accepted record")
    parser.add_argument("--goal", type=float, default=0.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(words)
    wrong, reached = tried_whole(options)
    if wrong or reached is None:
        print(f"the suites fail as they are: nothing can be concluded\n{wrong}")
        return 1
    known = spared()
    mutants = chosen(options.packages, options.only, options.sample, options.seed)
    equivalent = [mutant for mutant in mutants if named(mutant) in known]
    mutants = [mutant for mutant in mutants if named(mutant) not in known]
    began_s = time.monotonic()
    parts = {mutant: reached.parts_for(mutant) for mutant in mutants}
    found = {mutant: Fate("", "nothing reaches its line") for mutant, names in parts.items() if not names}
    for mutant in found:
        print(f"ALIVE {mutant} (nothing reaches it)", flush=True)
    found |= tried({mutant: names for mutant, names in parts.items() if names}, options)
    share = report(found, equivalent, time.monotonic() - began_s, options)
    if options.json:
        rows = [{"mutant": named(m), "line": m.line, "by": f.killed_by, "said": f.said} for m, f in found.items()]
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return int(share < options.goal)


def tried_whole(options: argparse.Namespace) -> tuple[str, Reach | None]:
    """Return what fails without any mutant (nothing, as it should be), and which lines each part reaches."""
    with tempfile.TemporaryDirectory(prefix="interlock-mutants-") as folder:
        found: Reach | None = None
        for watched in (True, False):  # what is watched is slow, and is not judged
            names = () if watched or found is None else tuple(found.by_part)
            trial = start(None, names, options, Path(folder))
            trial.until_s += 600.0
            while (end := ended(trial)) is None:
                time.sleep(0.05)
            if end.killed_by:
                return end.said or "its process ended", None
            found = found or pickle.loads((Path(folder) / REACHED).read_bytes())
        return "", found


def report(
    found: Mapping[Mutant, Fate], equivalent: Sequence[Mutant], took_s: float, options: argparse.Namespace
) -> float:
    """Print the share of the killed, by package; return it for all, in percent."""
    made, killed, held = Counter[str](), Counter[str](), Counter[str]()
    for mutant, fate in found.items():
        for package in (mutant.path.parts[0], "all"):
            made[package] += 1
            killed[package] += bool(fate.killed_by)
            held[package] += fate.killed_by == "record"
    by_record = "told first by the accepted record" if options.quick else "by the accepted record alone"
    print(f"| package | mutants tried | killed | {by_record} | share |\n|---|---|---|---|---|")
    for package in (*PACKAGES, "all"):
        if made[package]:
            share = 100 * killed[package] / made[package]
            print(f"| `{package}` | {made[package]} | {killed[package]} | {held[package]} | {share:.1f} % |")
    how = "all mutants" if options.sample is None else f"a sample by seed {options.seed}"
    unreached = sum(fate.said == "nothing reaches its line" for fate in found.values())
    print(f"{how}; {unreached} in lines that nothing reaches; {len(equivalent)} spared as equivalent; {took_s:.0f} s")
    return 100 * killed["all"] / max(1, made["all"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
