"""Verb `load`: many runs at once through the gate, with tools that take the time that real ones take."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from interlock.chaos.latencies import Latencies, LogNormal, none, read_latencies
from interlock.chaos.load import LoadOptions, load_test
from interlock.chaos.load_report import Level, LoadReport, percentile_ms
from interlock.chaos.spoken import spoken_fault
from interlock.cli.options import JsonOption
from interlock.cli.output import note, print_json, print_table, print_text
from interlock.core.errors import ConfigError

__all__ = ["app", "load"]

app = typer.Typer()
DEFAULTS = LoadOptions()
INTERRUPTED = 130
SAY_EVERY_S = 5.0
COLUMNS = (
    "runs at once", "runs", "runs/s", "calls/s", "overhead p50", "p95", "p99 ms", "store p99", "tool p50", "refused",
    "lag p99", "RSS MiB",
)  # fmt: skip


RunsOption = Annotated[int, typer.Option(min=1, max=10_000_000, help="Most runs of a level.")]
SecondsOption = Annotated[
    float, typer.Option("--for", min=0.1, max=86_400, metavar="SECONDS", help="Most seconds of a level.")
]
ConcurrencyOption = Annotated[int, typer.Option(min=1, max=100_000, help="Runs at once: who has ended, begins again.")]
RateOption = Annotated[
    float | None, typer.Option(min=0.001, max=1_000_000, help="Arrivals a second instead, at random.")
]
RampOption = Annotated[
    bool, typer.Option("--ramp", help="1, 2, 4, … runs at once (or a rate that doubles), until it is saturated.")
]
CallsOption = Annotated[int, typer.Option(min=1, max=10_000, help="Tool calls of a run.")]
WritesOption = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of them that write.")]
MedianMsOption = Annotated[
    float | None, typer.Option(min=0.001, max=86_400_000, help="Of tools: half of the calls take less; else 120.")
]
P99MsOption = Annotated[
    float | None,
    typer.Option(min=0.001, max=86_400_000, help="One call in a hundred takes more; else 12.5 medians."),
]
LatenciesOption = Annotated[
    str | None,
    typer.Option(metavar="PATH|URL", help="Recorded ones instead: a trace, a store, or seconds in lines."),
]
ModelMsOption = Annotated[float, typer.Option(min=0.0, max=86_400_000, help="Median of a model turn.")]
FaultOption = Annotated[
    list[str] | None,
    typer.Option(metavar="FAULT", help="As in a suite: 'timeout_5%', '429_errors tool=kb.*'; repeat."),
]
AgentOption = Annotated[
    str | None, typer.Option(metavar="MODULE:FUNCTION", help="Your agent instead; its tools are really called.")
]
GateOption = Annotated[
    str | None, typer.Option(metavar="MODULE:NAME", help="Its gate; else the one in the module of the agent.")
]
TaskOption = Annotated[str | None, typer.Option(metavar="TEXT", help="What your agent is given.")]
ConfigOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Configuration of the test's own agent; else profile default.")
]
ProfileOption = Annotated[str | None, typer.Option(metavar="NAME", help="Profile of the test's own agent.")]
StoreOption = Annotated[
    str | None, typer.Option(metavar="URL", help="Keep the runs there; else a new file, deleted at the end.")
]
SeedOption = Annotated[int, typer.Option(help="Of arrivals, latencies and faults.")]


@app.callback()
def _verbs() -> None:
    """Keep `load` a verb of its own although it is the only one here."""


@app.command()
def load(
    runs: RunsOption = DEFAULTS.runs,
    seconds: SecondsOption = DEFAULTS.seconds,
    concurrency: ConcurrencyOption = DEFAULTS.concurrency,
    rate: RateOption = None,
    ramp: RampOption = False,
    calls: CallsOption = DEFAULTS.calls,
    writes: WritesOption = DEFAULTS.writes,
    median_ms: MedianMsOption = None,
    p99_ms: P99MsOption = None,
    latencies: LatenciesOption = None,
    model_ms: ModelMsOption = 0.0,
    fault: FaultOption = None,
    agent: AgentOption = None,
    gate: GateOption = None,
    task: TaskOption = None,
    config: ConfigOption = None,
    profile: ProfileOption = None,
    store: StoreOption = None,
    seed: SeedOption = DEFAULTS.seed,
    as_json: JsonOption = False,
) -> None:
    """Say what guards cost under load: throughput, their latency beside the tools', refusals, memory, store growth.

    Exit 1 if an effect happened twice or a run raised, 130 if it was interrupted: it then says what it has.
    """
    if agent is not None and (config is not None or profile is not None):
        raise ConfigError("--config, --profile: an agent of your own has the configuration of its gate")
    if agent is None and (gate is not None or task is not None):
        raise ConfigError(f"{'--gate' if gate is not None else '--task'}: name your --agent too")
    options = LoadOptions(
        runs, seconds, concurrency, rate, DEFAULTS.most_at_once, ramp, calls, writes,
        _tools(latencies, median_ms, p99_ms), _model(model_ms),
        tuple(spoken_fault(text) for text in fault or ()), seed, agent, gate, task, config, profile, store,
    )  # fmt: skip
    report = asyncio.run(_until_over(options))
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)
    for failure in report.failures:
        note(f"failed: {failure}")
    raise typer.Exit(INTERRUPTED if report.interrupted else int(bool(report.failures)))


def _tools(source: str | None, median_ms: float | None, p99_ms: float | None) -> Latencies | None:
    if source is not None:
        if median_ms is not None or p99_ms is not None:
            raise ConfigError("--latencies: recorded ones have a median and a p99 of their own: keep one")
        found = read_latencies(source)
        if found.of == "gaps":
            note(f"note: {source} has no times of answers: the gaps between calls are taken, the model's time in them")
        return found
    if median_ms is None and p99_ms is None:
        return None
    if median_ms is None:
        raise ConfigError("--p99-ms: say --median-ms too")
    return LogNormal(median_ms / 1e3, (12.5 * median_ms if p99_ms is None else p99_ms) / 1e3)


def _model(median_ms: float) -> Latencies | None:
    return none() if median_ms == 0.0 else LogNormal(median_ms / 1e3, 3.0 * median_ms / 1e3)


async def _until_over(options: LoadOptions) -> LoadReport:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        note("stopping: runs under way are cut off; once more to leave at once")
        over.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return await load_test(options, _Progress(), over)


class _Progress:
    """A line on stderr now and then; on a terminal, one that is written over."""

    def __init__(self) -> None:
        self._next_s = 0.0
        self._level: Level | None = None

    def __call__(self, level: Level, elapsed_s: float) -> None:
        if level is not self._level:
            self._level, self._next_s = level, 0.0
        if elapsed_s < self._next_s:
            return
        terminal = sys.stderr.isatty()
        self._next_s = elapsed_s + (0.5 if terminal else SAY_EVERY_S)
        text = f"{_name(level)}: {elapsed_s:.0f} s, {level.runs} runs, {level.taken.calls} calls"
        if terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
        else:
            note(text)


def _name(level: Level) -> str:
    return f"{level.rate_per_s:g}/s" if level.rate_per_s is not None else f"{level.concurrency} at once"


def _print(report: LoadReport) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    rows = [_row(level) for level in report.levels]
    print_table(COLUMNS, rows, numbers=COLUMNS[1:])
    saturated = report.saturated_at
    if saturated is not None:
        runs_per_s, calls_per_s = saturated.runs_per_s, saturated.calls_per_s
        print_text(f"saturated at {_name(saturated)}: {runs_per_s:.1f} runs, {calls_per_s:.0f} calls a second")
    for title, counted in (
        ("runs ended as", [level.reasons for level in report.levels]),
        ("calls refused as", [level.taken.refused for level in report.levels]),
        ("injected", [level.taken.injected for level in report.levels]),
    ):
        total: dict[str, int] = {}
        for counts in counted:
            for name, count in counts.items():
                total[name] = total.get(name, 0) + count
        if total:
            print_text(f"{title}: ", ", ".join(f"{name} {n}" for name, n in sorted(total.items(), key=lambda x: -x[1])))
    cut, shed = (sum(getattr(level, name) for level in report.levels) for name in ("cut", "shed"))
    if cut or shed:
        print_text(f"{cut} runs were cut off at the end of a level, {shed} arrivals were not begun")
    if report.writes is not None:
        print_text("writes: ", *(f"{n} {name}  " for name, n in report.writes.items()))
    grown = report.store_bytes_per_run
    if grown is not None:
        print_text(f"store: {report.store}, {grown / 1024:.1f} KiB a run")
    most = max((level.rss_bytes for level in report.levels), default=0)
    before, after = report.rss_bytes_before, report.rss_bytes_after
    print_text(f"memory: {before >> 20} MiB before, {most >> 20} at most, {after >> 20} after")
    print_text("tools: ", ", ".join(f"{k} {_short(v)}" for k, v in report.words["tools"].items()))
    sys.stdout.flush()


def _row(level: Level) -> list[Any]:
    taken = level.taken
    overhead = [_ms(percentile_ms(taken.overhead_s, share)) for share in (0.5, 0.95, 0.99)]
    return [
        _name(level),
        str(level.runs),
        f"{level.runs_per_s:.1f}",
        f"{level.calls_per_s:.0f}",
        *overhead,
        _ms(percentile_ms(taken.store_s, 0.99)),
        _ms(percentile_ms(taken.tool_s, 0.5)),
        str(sum(taken.refused.values())),
        _ms(percentile_ms(level.lag_s, 0.99)),
        str(level.rss_bytes >> 20),
    ]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _short(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
