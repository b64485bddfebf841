"""The end of a drill as text: one table, three lines, and what it was."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

from interlock.chaos.report import DrillReport, ScenarioReport
from interlock.chaos.score import Outcome, Side

__all__ = ["render"]

Row = tuple[str, Callable[[Side], str]]
NOT_SAID = "-"


def render(report: DrillReport, *, width: int = 120, color: bool = False) -> str:
    """Return the report as text of at most `width` columns, with terminal colours if asked."""
    # rich is for people only: `--json` never pays for it.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(
        caption=f"Seconds are the article's; the drill took {report.elapsed_s:.0f} s.", caption_justify="left"
    )
    table.add_column("", no_wrap=True)
    for name in ("bare", "Interlock", "the article reported"):
        table.add_column(name, overflow="fold")
    for scenario in report.scenarios:
        table.add_section()
        table.add_row(Text(scenario.title, style="bold"))
        for label, bare, guarded in _rows(scenario):
            table.add_row(f"  {label}", Text(bare), Text(guarded), scenario.reported.get(label, NOT_SAID))
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color, color_system="auto" if color else None)
    console.print(table)
    return out.getvalue() + "\n".join(_lines(report)) + "\n"


def _rows(scenario: ScenarioReport) -> list[tuple[str, str, str]]:
    rows: list[Row] = []
    if scenario.bare.asked:
        rows += [
            ("tickets asked for", lambda s: str(s.asked)),
            ("in the backend", lambda s: str(s.effects)),
            ("duplicates", _duplicates),
            ("accepted but lost to the agent", lambda s: str(s.lost)),
        ]
    if scenario.bare.forbidden:
        rows += [("forbidden writes", lambda s: str(s.forbidden)), ("refused, on record", lambda s: str(s.refused))]
    if scenario.bare.invented:
        rows.append(("values invented", lambda s: str(s.invented)))
    rows.append(("runs by stop reason", lambda s: _reasons(s.reasons)))
    if scenario.bare.asked:
        rows.append(("circuit opens", lambda s: str(s.circuit_opens)))
    rows += [
        ("calls", lambda s: f"{s.calls:,}"),
        ("dollars", lambda s: f"{s.cost_usd:,.2f}"),
        ("seconds", lambda s: f"{s.seconds:,.0f}"),
    ]
    texts = [(label, say(scenario.bare), say(scenario.guarded)) for label, say in rows]
    if scenario.name == "runaways":
        pairs = zip(scenario.bare.outcomes, scenario.guarded.outcomes, strict=True)
        texts += [(bare.mission.name, _run(bare), f"{_run(guarded)}: {guarded.reason}") for bare, guarded in pairs]
    return texts


def _duplicates(side: Side) -> str:
    if not side.duplicates:
        return "0"
    return f"{side.duplicates} ({side.duplicate_rate:.0%}, {side.duplicates_per_incident:.1f} an incident)"


def _reasons(reasons: Mapping[str, int]) -> str:
    return "\n".join(f"{n} {reason}" for reason, n in reasons.items())


def _run(outcome: Outcome) -> str:
    return f"{outcome.steps} steps, ${outcome.cost_usd:,.2f}, {outcome.seconds:,.0f} s"


def _lines(report: DrillReport) -> list[str]:
    if report.doubt is None:
        doubt = "none was left open"
    else:
        state = "the backend has it" if report.doubt.effect else "the backend does not have it"
        doubt = f'"{report.doubt.subject}" ({state}): {report.settle_command}'
    worst = report.show_command or "no run was stopped"
    return [
        f"doubt      {doubt}",
        f"worst run  {worst}",
        f"store      {report.store}",
        f"a scripted agent against a scripted backend, seed {report.seed}",
    ]
