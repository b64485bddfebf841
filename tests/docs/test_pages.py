"""What the pages say of the code is so: keys, sentences, commands, links, guards."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import reference
from pages import PAGES, ROOT, RUNBOOKS, blocks, commands, prose
from reference import config_keys

from interlock.gateway.pipeline import Funnel

GUARD_HEADINGS = ["About", "Usage", "Defaults", "What the model sees", "What is recorded", "Patterns", "Anti-patterns"]
GUARD_PAGES = {path.stem: path for path in (ROOT / "docs/guards").glob("*.md")}
ALL = (*PAGES, *RUNBOOKS)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def keys() -> frozenset[str]:
    return frozenset(key.path for key in config_keys())


SECTIONS = "agent|tools|tenants|validation|approvals|prices|logging|record|retention|safe_mode"


@pytest.mark.parametrize("page", ALL, ids=name)
def test_every_key_that_a_page_names_exists(page):
    named = re.findall(rf"`((?:{SECTIONS})\.[a-z_]+(?:\.[a-z_]+)*)(?::[^`]*)?`", prose(page))
    assert set(named) - keys() == set()


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


def plain(default: str) -> str:
    """A default as a person writes it: without brackets, backticks and separators of thousands."""
    text = default.replace("`", "").strip("[]{}")
    return re.sub(r"(?<=\d),(?=\d{3})", "", text).removesuffix(".0")


@pytest.mark.parametrize("guard", sorted(GUARD_PAGES))
def test_the_defaults_of_a_guard_are_those_of_the_code(guard):
    section = prose(GUARD_PAGES[guard]).split("## Defaults\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", section, re.MULTILINE)
    known = {key.path: plain(key.default) for key in config_keys() if key.default is not None}
    wrong = []
    for names, values in rows:
        for name, value in zip(
            re.findall(r"`([^`]+)`", names), values.split(", ") if "`, `" in names else [values], strict=True
        ):
            default = known.get(name)
            # Nothing, or something long, is said in words; a number or a switch is said exactly.
            exact = default is not None and default not in ("null", "{}", "") and len(default) < 40
            if exact and plain(value.strip()) != default:
                wrong.append((name, value, default))
    assert wrong == []


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
    assert [line for line in prose(page).splitlines() if len(line) > 125 and not line.startswith("|")] == []


def test_the_readme_has_the_length_that_people_read():
    assert 75 <= len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 145


@cache
def verbs() -> dict[str, Any]:
    return {words: command for _, words, command in reference.commands()}


def fault(shown: str) -> str | None:
    """What is wrong with a command that a page shows, or None."""
    words = shlex.split(shown, comments=True)
    verb = next((v for n in (3, 2) if (v := " ".join(words[:n])) in verbs()), None)
    if verb is None:
        group = " ".join(words[:2])
        return None if any(v.startswith(f"{group} ") for v in verbs()) and len(words) == 2 else f"no verb {group}"
    options = {name: p for p in verbs()[verb].params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
    free = sum(1 if p.nargs == 1 else 100 for p in verbs()[verb].params if not p.opts[0].startswith("-"))
    needed = {name: p for name, p in options.items() if p.required}
    rest = iter(words[len(verb.split()) :])
    given = set()
    for word in rest:
        if word.startswith("--"):
            name = word.partition("=")[0]
            if name not in options:
                return f"{verb} has no {name}"
            given.add(options[name].name)
            if not getattr(options[name], "is_flag", False) and "=" not in word:
                next(rest, None)
        else:
            free -= 1
    if free < 0:
        return f"{verb} takes fewer arguments"
    bare = len(words) == len(verb.split())  # a verb that is only mentioned
    missing = [name for name, p in needed.items() if p.name not in given and not bare]
    return f"{verb} needs {missing[0]}" if missing else None


@pytest.mark.parametrize("page", ALL, ids=name)
def test_every_command_that_a_page_shows_exists(page):
    assert {command: fault(command) for command in commands(page) if fault(command)} == {}


def test_the_search_for_wrong_commands_finds_them():
    assert fault("interlock shew RUN")
    assert fault("interlock show RUN --jsn")
    assert fault("interlock doubts a b c d")
    assert fault("interlock show RUN --json") is None
    assert len({command for page in ALL for command in commands(page)}) > 30


def test_the_reference_is_what_the_code_says():
    stale = [path.name for path, text in reference.pages().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make docs`"


def test_the_loop_changes_in_three_lines():
    before, after = (
        next(b for b in blocks(ROOT / "README.md") if word in b.words).text.splitlines() for word in ("before", "after")
    )
    assert len(before) == len(after)
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 3


def test_fences_say_their_language():
    assert [block.name for page in ALL for block in blocks(page) if not block.language] == []
