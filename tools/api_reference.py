"""The page of public names, written from their docstrings; see `reference.py`."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import Any

import interlock

__all__ = ["WRITTEN", "api_page"]

WRITTEN = "<!-- written by tools/reference.py; `make docs` renews it -->"


def api_page() -> str:
    """Return the page of public names, from their docstrings."""
    lines = [
        "# Python names",
        "",
        WRITTEN,
        "",
        "Everything that `import interlock` offers. Names that are not here may change in any version.",
    ]
    for name in sorted(interlock.__all__):
        value = getattr(interlock, name)
        lines += ["", f"## {name}"]
        if inspect.ismodule(value):
            lines += ["", f"Module: `interlock.{name}`.", *_text(value)]
            continue
        lines += _described(name, value)
        if inspect.isclass(value) and not issubclass(value, Enum | Exception):
            for member, method in _members(value):
                lines += ["", f"### {name}.{member}", *_described(member, method)]
        elif inspect.isclass(value) and issubclass(value, Enum):
            lines += ["", f"{len(value)} values, listed under [stop reasons](stop-reasons.md)."]
    return "\n".join(lines) + "\n"


def _members(owner: type) -> list[tuple[str, Any]]:
    own = [(name, value) for cls in owner.__mro__ for name, value in vars(cls).items() if cls.__module__ != "builtins"]
    public = {name: value for name, value in reversed(own) if not name.startswith("_")}
    documented = {n: v for n, v in public.items() if inspect.isfunction(v) or isinstance(v, property)}
    return [(name, documented[name]) for name in vars(owner) if name in documented]


def _described(name: str, value: Any) -> list[str]:
    plain = isinstance(value, property) or (inspect.isclass(value) and issubclass(value, Enum | Exception))
    # An error is caught, not made: its constructor is nobody's business but that of `NotPerformed`, which takes a text.
    lines = [] if plain else ["", "```text", _signature(name, value), "```"]
    return [*lines, *_text(value)]


def _signature(name: str, value: Any) -> str:
    prefix = "async " if inspect.iscoroutinefunction(value) else ""
    parameters = [p for p in inspect.signature(value).parameters.values() if p.name != "self"]
    written, starred = [], False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not starred:
            written.append("*")
        starred = starred or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        stars = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        default = "" if p.default is p.empty else f"={_short(p.default)}"
        written.append(f"{stars}{p.name}{default}")
    text = f"{prefix}{name}({', '.join(written)})"
    return text if len(text) <= 115 else f"{prefix}{name}(\n    " + ",\n    ".join(written) + ",\n)"


def _short(default: Any) -> str:
    return "…" if " object at " in repr(default) or "factory" in repr(default) else repr(default)


def _text(value: Any) -> list[str]:
    text = inspect.getdoc(value) or ""
    first, _, rest = text.partition("\n\n")
    lines = ["", " ".join(first.split())]
    return [*lines, "", "```text", rest.strip("\n"), "```"] if rest.strip() else lines
