"""The table of docs/guards/taint.md is what its program counts."""

from __future__ import annotations

import taint_figures


def test_the_page_prints_what_the_program_counts(data):
    page = taint_figures.PAGE.read_text(encoding="utf-8")
    printed = page.split("<!-- taint: tools")[1].split("\n", 1)[1].split("<!-- taint: end")[0]
    counted = taint_figures.table(data / "agentdojo")
    figures = [line for line in counted.splitlines() if line.startswith("|")]
    assert figures == [line for line in printed.splitlines() if line.startswith("|")]
    assert len(figures) == 9
