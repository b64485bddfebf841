"""What the pages say of the code is so: keys, sentences, commands, links, guards."""

from __future__ import annotations

import ast
import dataclasses
import re
from functools import cache
from pathlib import Path

import pytest
from pages import PAGES, ROOT, RUNBOOKS, blocks, commands, prose

from interlock.config.settings import json_schema
from interlock.gateway.pipeline import Funnel

GUARD_HEADINGS = ["About", "Usage", "Defaults", "What the model sees", "What is recorded", "Patterns", "Anti-patterns"]
GUARD_PAGES = {path.stem: path for path in (ROOT / "docs/guards").glob("*.md")}
ALL = (*PAGES, *RUNBOOKS)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def keys() -> frozenset[str]:
    """Every dotted key that the configuration knows; `*` where the user names something."""
    schema = json_schema()
    found: set[str] = set()

    def walk(node: dict, path: str) -> None:
        if "$ref" in node:
            return walk(schema["$defs"][node["$ref"].rsplit("/", 1)[1]], path)
        for option in node.get("anyOf", ()):
            walk(option, path)
        for key, child in node.get("properties", {}).items():
            dotted = f"{path}.{key}" if path else key
            found.add(dotted)
            walk(child, dotted)
        extra = node.get("additionalProperties")
        if isinstance(extra, dict):
            found.add(f"{path}.*")
            walk(extra, f"{path}.*")
        return None

    walk(schema, "")
    return frozenset(found)


SECTIONS = "agent|tools|tenants|validation|approvals|prices|logging|record|safe_mode"


@pytest.mark.parametrize("page", ALL, ids=name)
def test_every_key_that_a_page_names_exists(page):
    named = re.findall(rf"`((?:{SECTIONS})\.[a-z_]+(?:\.[a-z_]+)*)(?::[^`]*)?`", prose(page))
    tools = {"tools.reference", "tools.checklist"}
    assert {key for key in named if key not in keys() and key not in tools} == set()


@cache
def sentences() -> tuple[re.Pattern[str], ...]:
    """Every text in the source as a pattern, with something in the place of each value."""
    found = set()
    for path in (ROOT / "src/interlock").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(re.escape(node.value))
            elif isinstance(node, ast.JoinedStr):
                found.add("".join(re.escape(p.value) if isinstance(p, ast.Constant) else ".+?" for p in node.values))
    return tuple(re.compile(pattern) for pattern in found)


@pytest.mark.parametrize("guard", sorted(GUARD_PAGES))
def test_what_the_model_sees_is_quoted_word_for_word(guard):
    section = prose(GUARD_PAGES[guard]).split("## What the model sees\n")[1].split("\n## ")[0]
    quoted = re.findall(r'"([^"]+)"', " ".join(section.split()))
    assert [text for text in quoted if not any(p.fullmatch(text) for p in sentences())] == []


def test_each_guard_has_a_page():
    assert set(GUARD_PAGES) == {field.name for field in dataclasses.fields(Funnel)} - {"perform"}


@pytest.mark.parametrize("guard", sorted(GUARD_PAGES))
def test_guard_pages_have_the_fixed_headings(guard):
    text = prose(GUARD_PAGES[guard])
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == GUARD_HEADINGS
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", ALL, ids=name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        assert not target.startswith("http"), f"{target}: the pages must be readable without a network"
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if fragment:
            assert fragment in {anchor(h) for h in re.findall(r"^#+ (.+)$", prose(there), re.MULTILINE)}, target


@pytest.mark.parametrize("page", ALL, ids=name)
def test_pages_are_plain(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(
        r"\b(simply|seamless\w*|powerful|blazing\w*|effortless\w*|robust|leverag\w+)\b", text, re.IGNORECASE
    )
    assert max(map(len, prose(page).splitlines()), default=0) <= 220


def test_the_readme_has_the_length_that_people_read():
    assert 75 <= len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 145


def test_commands_are_found_where_they_stand():
    shown = {command for page in ALL for command in commands(page)}
    assert "interlock doubts" in shown
    assert len(shown) > 30


def test_fences_say_their_language():
    assert [block.name for page in ALL for block in blocks(page) if not block.language] == []
