"""The manifest of the checklist is whole: every item has tests that exist, every guard is needed for one."""

from __future__ import annotations

import ast
import dataclasses
from functools import cache
from pathlib import Path

import pytest

from interlock.gateway.pipeline import Funnel
from requirements import REQUIREMENTS, SECTIONS, Requirement

ROOT = Path(__file__).parents[1]
CASES = [pytest.param(r, id=" / ".join(filter(None, (r.item[:40], r.part)))) for r in REQUIREMENTS]


@cache
def names_in(path: Path) -> frozenset[str]:
    """Names of the tests of a file, as pytest writes them after the file's name, without parameters."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}::{f.name}" for f in node.body if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
    return frozenset(found)


@pytest.mark.parametrize("requirement", CASES)
def test_the_tests_of_an_item_exist(requirement: Requirement):
    assert requirement.tests or requirement.not_yet
    for node in requirement.tests:
        file, _, name = node.partition("::")
        assert name in names_in(ROOT / file), node


@pytest.mark.parametrize("requirement", CASES)
def test_the_guard_of_an_item_can_be_switched_off(requirement: Requirement):
    off = requirement.off
    if off is None:
        assert requirement.not_yet
        return
    text = (ROOT / off.file).read_text(encoding="utf-8")
    if off.new is not None:
        assert text.count(off.old) == 1, f"{off.file} says {off.old!r} {text.count(off.old)} times"
        assert off.new != off.old


def test_every_item_of_the_article_is_there():
    listed = {(r.section, r.item) for r in REQUIREMENTS}
    assert listed == {(section, item) for section, items in SECTIONS.items() for item in items}
    assert len(listed) == 17


def test_every_guard_of_the_funnel_is_needed_by_an_item():
    guards = {field.name for field in dataclasses.fields(Funnel)} - {"perform"}
    assert guards - {r.guard for r in REQUIREMENTS} == set()


def test_what_is_not_met_says_so_and_nothing_else_does():
    assert [r.item for r in REQUIREMENTS if r.not_yet] == []
