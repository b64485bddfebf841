"""The rules that keep the house readable, as tests. import-linter holds the floors; this file holds the rest.

Each exception is named with its reason, and an exception that nobody needs any more fails too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import interlock

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "interlock"
FILES = sorted(SOURCE.rglob("*.py"))

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PUBLIC_NAMES = 20

# Files that may import our own modules inside a function, and why.
LAZY_IMPORTS = {
    "__init__.py": "the facade imports a name when it is first asked for, so that `import interlock` stays cheap",
    "config/opening.py": "the store on PostgreSQL is as much code as all the rest of the stores, and few name one",
    "chaos/pytest_plugin.py": "every pytest of a user's environment loads it, also those that do not ask for its fixture",
    "cli/": "`interlock --help` must not pay for what other verbs import",
}

# Files that may reach for time, sleep or chance themselves, and why.
TIME_AND_CHANCE = {
    "core/clock.py": "the only door",
}

FORBIDDEN_MODULES = {"time", "random"}
FORBIDDEN_NAMES = {
    ("asyncio", "sleep"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}


def inside(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def excepted(path: Path, exceptions: dict[str, str]) -> str | None:
    name = inside(path)
    return next((e for e in exceptions if name == e or (e.endswith("/") and name.startswith(e))), None)


def parsed(path: Path) -> ast.Module:
    text = path.read_text(encoding="utf-8")
    try:
        return ast.parse(text, str(path))
    except SystemError:  # CPython 3.11 may lose count of its own depth after a RecursionError elsewhere; once
        return ast.parse(text, str(path))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring: a public text may be as long as it must be."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function):
        lines -= function.body[0].end_lineno - function.body[0].lineno + 1
    return lines


def modules_named(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["interlock" if node.level else node.module or ""]
    return []


def imports_of_ours(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if any(name.split(".")[0] == "interlock" for name in modules_named(node)):
            yield node.lineno


def lazy_imports(tree: ast.Module) -> set[int]:
    found = {line for function in functions(tree) for line in imports_of_ours(function)}
    names = (node for function in functions(tree) for node in ast.walk(function) if isinstance(node, ast.Attribute))
    return found | {node.lineno for node in names if node.attr in {"import_module", "__import__"}}


def reaches_for_time(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [a.name for a in node.names if a.name in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {(node.module, a.name) for a in node.names}
            found = (
                [node.module] if node.module in FORBIDDEN_MODULES else [".".join(n) for n in names & FORBIDDEN_NAMES]
            )
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
            found = [f"{owner}.{node.attr}"] if (owner, node.attr) in FORBIDDEN_NAMES else []
        else:
            continue
        yield from (f"line {node.lineno}: {name}" for name in found)


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_a_file_fits_the_eye(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines < MAX_FILE_LINES, f"{inside(path)} has {lines} lines: give a part of it a name and a file"


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_a_function_fits_the_screen(path):
    lengths = {f"{f.name} (line {f.lineno})": code_lines(f) for f in functions(parsed(path))}
    assert {name: n for name, n in lengths.items() if n >= MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_a_module_says_what_it_promises(path):
    assert ast.get_docstring(parsed(path)), f"{inside(path)} has no docstring"


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_no_type_only_imports(path):
    names = {n.id for n in ast.walk(parsed(path)) if isinstance(n, ast.Name)}
    assert "TYPE_CHECKING" not in names, "a type-only import hides a circle from Python, not from the reader"


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_our_own_modules_are_imported_at_the_top(path):
    if excepted(path, LAZY_IMPORTS) is None:
        assert lazy_imports(parsed(path)) == set()


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_time_and_chance_come_through_the_clock(path):
    if excepted(path, TIME_AND_CHANCE) is None:
        assert list(reaches_for_time(parsed(path))) == []


def test_every_exception_is_needed():
    lazy = {excepted(p, LAZY_IMPORTS) for p in FILES if lazy_imports(parsed(p))}
    timed = {excepted(p, TIME_AND_CHANCE) for p in FILES if any(reaches_for_time(parsed(p)))}
    assert set(LAZY_IMPORTS) - lazy == set()
    assert set(TIME_AND_CHANCE) - timed == set()


def test_the_facade_stays_small_and_every_name_is_there():
    assert len(interlock.__all__) < MAX_PUBLIC_NAMES
    assert [name for name in interlock.__all__ if not hasattr(interlock, name)] == []


FORBIDDEN_FILE_NAMES = {"utils", "helpers", "common", "base", "manager", "misc"}


def test_files_are_named_for_what_is_in_them():
    assert [inside(p) for p in FILES if p.stem in FORBIDDEN_FILE_NAMES] == []


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("import time", True),
        ("from random import choice", True),
        ("import asyncio\nasync def f(): await asyncio.sleep(1)", True),
        ("from asyncio import sleep", True),
        ("import datetime\nx = datetime.datetime.now()", True),
        ("from datetime import datetime\nx = datetime.now()", True),
        ("clock.sleep(1)\nclock.monotonic()", False),
        ("import timeit", False),
    ],
)
def test_the_search_for_time_finds_what_it_should(source, caught):
    assert any(reaches_for_time(ast.parse(source))) is caught


def test_the_search_for_lazy_imports_finds_relative_ones_too():
    source = "import interlock.core\ndef f():\n    from . import x\n    import interlock\n    import json\n"
    assert lazy_imports(ast.parse(source)) == {3, 4}
    assert lazy_imports(ast.parse("def f(name):\n    importlib.import_module(name)\n")) == {2}
