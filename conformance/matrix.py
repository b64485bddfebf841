"""The whole matrix: players in parallel, one verdict, a table, an exit code."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.judge import Cell, Facts, judge
from conformance.places import Place
from conformance.player import session_name
from conformance.report import Played
from conformance.scenario import Scenario
from conformance.scenarios import SCENARIOS, configuration
from conformance.stage import Stage
from interlock import Interlock
from interlock.core.clock import SYSTEM

__all__ = ["REFERENCE", "Matrix", "run_matrix", "verdict"]

REFERENCE = "loop"
ROOT = Path(__file__).parents[1]
# Frameworks that report to somewhere, or trace to somewhere, do neither here.
QUIET = {
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "ANONYMIZED_TELEMETRY": "false",
    "DISABLE_TELEMETRY": "1",
    "NO_PROXY": "127.0.0.1,localhost",
}


@dataclass(frozen=True, slots=True)
class Matrix:
    """All cells, and what is wrong with them as a whole.

    Attributes:
        absent: Column to the reason why it could not be played.
    """

    cells: tuple[Cell, ...]
    absent: Mapping[str, str]

    def cell(self, scenario: str, framework: str, *, guarded: bool) -> Cell | None:
        """Return one cell."""
        found = (c for c in self.cells if (c.scenario, c.framework, c.guarded) == (scenario, framework, guarded))
        return next(found, None)

    @property
    def frameworks(self) -> tuple[str, ...]:
        """Columns that were played, in order."""
        return tuple(dict.fromkeys(c.framework for c in self.cells))


def verdict(matrix: Matrix, scenarios: Sequence[Scenario], *, whole: bool = True) -> list[str]:
    """Return what makes the matrix fail; an empty list means that it is as it must be.

    Args:
        scenarios: The rows. whole: that these are rows enough for every bare column to show a duplicate.
    """
    found = [f"{name}: could not be played: {why}" for name, why in matrix.absent.items()]
    lost_answers = {s.name for s in scenarios if s.lost_answer}
    for name in matrix.frameworks:
        bare = [c for c in matrix.cells if c.framework == name and not c.guarded and c.scenario in lost_answers]
        if whole and bare and all(c.cannot is not None or not c.duplicated for c in bare):
            found.append(f"{name}: bare, it shows no duplicate in any row with a lost answer: the matrix cannot fail")
        for s in scenarios:
            for guarded in (False, True):
                cell = matrix.cell(s.name, name, guarded=guarded)
                if cell is None:
                    found.append(f"{name}, {s.name}, {_side(guarded=guarded)}: blank")
                elif guarded and cell.cannot is None and not cell.held:
                    found.append(f"{name}, {s.name}: {cell.text}" + "".join(f"\n    {fault}" for fault in cell.faults))
                elif not guarded and cell.faults:
                    found.append(f"{name}, {s.name}, bare: {cell.faults[0]}")
    return found


def _side(*, guarded: bool) -> str:
    return "guarded" if guarded else "bare"


async def run_matrix(
    places: Sequence[Place],
    scenarios: Sequence[Scenario] = SCENARIOS,
    *,
    at_once: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Matrix:
    """Play every scenario through every column, bare and guarded.

    Args:
        places: The columns, each with the interpreter that has its framework; the hand-written loop is added.
        at_once: Processes at a time; twice as many as cores if left out, since they wait half of the time.
    """
    work = Path(tempfile.mkdtemp(prefix="interlock-conformance-"))
    if REFERENCE not in {place.name for place in places}:
        places = [Place(REFERENCE), *places]
    try:
        await _make_stores(work, places, scenarios)
        async with Stage(work) as stage:
            turn = asyncio.Semaphore(at_once or 2 * (os.cpu_count() or 1))
            sides = [(place, guarded) for place in places for guarded in (False, True)]
            plays = await asyncio.gather(
                *(_play(stage, work, place, scenarios, turn, progress, guarded=guarded) for place, guarded in sides)
            )
            return _judged(stage, dict(zip(sides, plays, strict=True)), scenarios)
    finally:
        shutil.rmtree(work, ignore_errors=True)


async def _make_stores(work: Path, places: Iterable[Place], scenarios: Iterable[Scenario]) -> None:
    """Give every guarded session a copy of one store, so that all records hash arguments with one secret."""
    seed = work / "seed"
    seed.mkdir()
    gate = Interlock(configuration({}), store=f"sqlite:///{seed}/interlock.db")
    gate.house()
    await gate.aclose()
    for place in places:
        for scenario in scenarios:
            shutil.copytree(seed, work / session_name(scenario.name, place.name, guarded=True))


async def _play(
    stage: Stage,
    work: Path,
    place: Place,
    scenarios: Sequence[Scenario],
    turn: asyncio.Semaphore,
    progress: Callable[[str], None],
    *,
    guarded: bool,
) -> dict[str, Played] | str:
    """Return what one process played, by scenario; or why it could not."""
    out = work / f"{place.name}.{_side(guarded=guarded)}.jsonl"
    words = ["--column", place.column, "--side", _side(guarded=guarded), "--model", stage.model.url]
    words += ["--world", stage.world.url, "--work", str(work), "--out", str(out)]
    async with turn:
        began_s = SYSTEM.monotonic()
        process = await asyncio.create_subprocess_exec(
            place.python,
            "-m",
            "conformance.player",
            *words,
            *(s.name for s in scenarios),
            env=os.environ | QUIET | {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}{os.pathsep}{ROOT}"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            cwd=work,
        )
        _, errors = await process.communicate()
        took_s = SYSTEM.monotonic() - began_s
    progress(f"{place.name}, {_side(guarded=guarded)}: {took_s:.0f} s")
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    if not lines:
        said = errors.decode(errors="replace").strip().splitlines() or [f"ended with {process.returncode}"]
        return said[-1][:600]
    return {played.scenario: played for played in map(Played.read, lines)}


def _judged(
    stage: Stage, plays: Mapping[tuple[Place, bool], dict[str, Played] | str], scenarios: Sequence[Scenario]
) -> Matrix:
    by_hand = next((p for (place, guarded), p in plays.items() if place.name == REFERENCE and guarded), {})
    cells: list[Cell] = []
    absent: dict[str, str] = {}
    for (place, guarded), played in plays.items():
        if isinstance(played, str):
            absent[place.name] = played
            continue
        for scenario in (s for s in scenarios if s.name in played):
            reference = None
            if guarded and place.name != REFERENCE and not isinstance(by_hand, str) and scenario.name in by_hand:
                reference = (by_hand[scenario.name], _facts(stage, scenario, REFERENCE, guarded=True))
            facts = _facts(stage, scenario, place.name, guarded=guarded)
            cells.append(judge(scenario, played[scenario.name], facts, reference))
    return Matrix(tuple(cells), absent)


def _facts(stage: Stage, scenario: Scenario, column: str, *, guarded: bool) -> Facts:
    session = session_name(scenario.name, column, guarded=guarded)
    happened, asked = stage.world.happened(session), stage.model.asked(session)
    return Facts(happened.effects(), dict(happened.requests), happened.hasty, tuple(asked.heard), asked.requests)
