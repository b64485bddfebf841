"""The report of a diagnosis as one HTML page: opens from a disk, fetches nothing, runs nothing.

Names, ids and sentences come from records, and there from models: every one of them is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from interlock.core.categories import Category
from interlock.core.reasons import StopReason
from interlock.forensics.report import Bar, Incident, Report, Spent
from interlock.forensics.tree import ELSE, TREE

__all__ = ["html_report"]

SHOWN_INCIDENTS = 200
_ROW, _LEFT, _WIDTH, _NAMES = 16, 250, 900, 38
_TITLES = {str(int(c)): f"{int(c)} · {c.title}" for c in Category}
_TITLES |= {"model": "none of them: model, task, or nothing at all", "insufficient": "6 · not enough recorded"}
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--ok:#5b8def;--bad:#d9534f;--mark:#e0a100}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}table{border-collapse:collapse;width:100%}
td,th{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.9em;overflow-wrap:anywhere}
details{border:1px solid var(--line);border-radius:.4rem;margin:.5rem 0;padding:.4rem .8rem}summary{cursor:pointer}
svg{width:100%;height:auto;font:11px ui-monospace,monospace}svg text{fill:currentColor}.ok{fill:var(--ok)}
.bad{fill:var(--bad)}.mark{fill:none;stroke:var(--mark);stroke-width:2}.dim{opacity:.7}
"""


def html_report(report: Report, *, title: str = "Interlock diagnosis") -> str:
    """Return the page."""
    body = "\n".join(_parts(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n{body}\n"
        "</body></html>\n"
    )


def _parts(report: Report) -> Iterator[str]:
    yield f"<p>{report.all.runs:,} runs, {report.all.calls:,} calls. {_failure(report.failed)}</p>"
    yield "<h2>Verdicts</h2>"
    yield _table(
        ("verdict", "runs", "calls", "dollars", "minutes"),
        [
            (_TITLES.get(verdict, verdict), f"{s.runs:,}", f"{s.calls:,}", _usd(s), _minutes(s))
            for verdict, s in sorted(report.by_verdict.items())
        ],
        numbers=4,
    )
    if report.clean:
        yield f'<p class="dim">{report.clean:,} runs of the last kind succeeded: nothing was found in them.</p>'
    yield from _tools(report)
    yield from _gaps(report)
    incidents = report.incidents
    yield f"<h2>Incidents</h2><p>{len(incidents):,}, by reason, tool and arguments; what decides verdicts first.</p>"
    for number, incident in enumerate(incidents[:SHOWN_INCIDENTS]):
        yield _incident(incident, opened=number == 0)
    if len(incidents) > SHOWN_INCIDENTS:
        yield f'<p class="dim">{len(incidents) - SHOWN_INCIDENTS:,} further incidents are not drawn.</p>'
    yield "<h2>The tree</h2><ol>"
    for branch in TREE:
        category = f"{int(branch.category)} {branch.category.title}"
        yes = f"<span class=dim>{escape(branch.yes_when)}</span>"
        yield f"<li><b>{escape(branch.question)}</b> → {escape(category)}<br>{yes}</li>"
    yield f"<li>{escape(ELSE)}</li></ol>"


def _failure(failed: Spent) -> str:
    return f"Failing runs: {failed.runs:,}, with {failed.calls:,} calls, {_usd(failed)} and {_minutes(failed)} minutes."


def _usd(spent: Spent) -> str:
    unknown = f" (+ {spent.cost_unknown:,} runs of unknown cost)" if spent.cost_unknown else ""
    return f"${spent.cost_usd:,.2f}{unknown}" if spent.cost_unknown < spent.runs else "unknown"


def _minutes(spent: Spent) -> str:
    return f"{spent.seconds / 60:,.1f}" if spent.seconds_unknown < spent.runs else "unknown"


def _tools(report: Report) -> Iterator[str]:
    worst = report.worst_tools[:15]
    if worst:
        yield "<h2>Worst tools</h2>"
        rows = [
            (name, f"{f.calls:,}", f"{f.errors:,}", f"{f.blamed:,}", f"{f.slowest_s:.2f} s" if f.timed else "")
            for name, f in worst
        ]
        yield _table(("tool", "calls", "failed", "blamed", "slowest"), rows, numbers=4)


def _gaps(report: Report) -> Iterator[str]:
    lacking = [(name, f"{runs:,} of {report.all.runs:,}") for name, runs in report.lacking.most_common() if runs]
    if lacking or report.broken_count or report.unread:
        yield "<h2>Not recorded, not read</h2>"
        yield _table(("field", "runs without it"), lacking, numbers=1)
        if report.broken_count:
            items = "".join(f"<li><code>{escape(each)}</code></li>" for each in report.broken)
            yield f"<p>{report.broken_count:,} broken records:</p><ul>{items}</ul>"
        for path, why in report.unread:
            yield f"<p>not read: <code>{escape(path)}</code>: {escape(why)}</p>"


def _incident(incident: Incident, *, opened: bool) -> str:
    head = f"{incident.category} · {incident.reason}" + (f" · {incident.tool}" if incident.tool else "")
    counts = f"{incident.runs:,} runs, {incident.findings:,} findings, decided {incident.decided:,}"
    cost = f", ${incident.cost_usd:,.2f}" if incident.cost_usd else ""
    examples = ", ".join(f"<code>{escape(run)}</code>" for run in incident.examples)
    args = f" <code>{escape(incident.args_hash[:12])}</code>" if incident.args_hash else ""
    known = incident.reason in set(StopReason)
    book = f"<p><code>interlock runbook {escape(incident.reason)}</code></p>" if known else ""
    return (
        f"<details{' open' if opened else ''}><summary><b>{escape(head)}</b>{args} "
        f"<span class=dim>{counts}{cost}</span></summary>\n<p>{escape(incident.why)}. Runs: {examples}</p>"
        f"{book}{_waterfall(incident.bars, incident.total_s)}</details>"
    )


def _waterfall(bars: Sequence[Bar], total_s: float | None) -> str:
    if not bars:
        return ""
    height = _ROW * (len(bars) + 1)
    space = _WIDTH - _LEFT - 10
    rows = []
    for number, bar in enumerate(bars):
        top = _ROW * (number + 1)
        name = bar.tool if len(bar.tool) <= _NAMES - 10 else bar.tool[: _NAMES - 11] + "…"
        x, width = _LEFT + bar.start * space, max(2.0, bar.length * space)
        look = "ok" if bar.status in {"ok", "success", "replayed", "repeated"} else "bad"
        took = "" if bar.duration_s is None else f", {bar.duration_s:.3f} s"
        mark = f'x="{x - 2:.1f}" y="{top}" width="{width + 4:.1f}" height="{_ROW - 1}"'
        label = f"{bar.step:>3} {escape(name)} {escape(bar.args_hash[:6])}"
        tip = escape(f"step {bar.step}: {bar.tool} {bar.args_hash[:12]}: {bar.status}{took}")
        rows.append(
            f'<g><title>{tip}</title><text x="0" y="{top + 11}">{label}</text>'
            f'<rect class="{look}" x="{x:.1f}" y="{top + 2}" width="{width:.1f}" height="{_ROW - 5}"/>'
            + (f'<rect class="mark" {mark}/>' if bar.marked else "")
            + "</g>"
        )
    scale = "one unit a turn (no times recorded)" if total_s is None else f"{total_s:.1f} s"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="waterfall of the first run">'
        f'<text class="dim" x="{_LEFT}" y="11">{escape(scale)}</text>{"".join(rows)}</svg>'
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int) -> str:
    """Return a table whose last `numbers` columns stand to the right."""
    first = len(columns) - numbers
    heads = "".join(f"<th{' class=n' if i >= first else ''}>{escape(c)}</th>" for i, c in enumerate(columns))
    lines = (
        "<tr>" + "".join(f"<td{' class=n' if i >= first else ''}>{escape(c)}</td>" for i, c in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
