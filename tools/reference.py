"""Writes the reference pages from the code: configuration, command line, stop reasons, the decision tree.

python tools/reference.py            writes docs/reference/*.md
python tools/reference.py --check    fails if a page is not what the code says
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from typer.main import get_group

from interlock.cli.app import VERBS
from interlock.config.settings import PROFILES, Settings, json_schema
from interlock.core.reasons import EXIT_CODES, PARKING_REASONS, SEVERITIES, StopReason
from interlock.gateway.pipeline import Funnel

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from api_reference import WRITTEN, api_page  # noqa: E402 - beside this file
from tree_page import tree_page  # noqa: E402 - beside this file

from requirements import REQUIREMENTS, SECTIONS  # noqa: E402 - beside the tests

GUARDS = {field.name for field in fields(Funnel)}
PAGES = ROOT / "docs" / "reference"


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Attributes:
        path: Dotted; `*` stands where the user names something.
        kind: What may be written there.
        default: As YAML, or None where the key is a section.
        text: What it means.
    """

    path: str
    kind: str
    default: str | None
    text: str


def config_keys(schema: dict[str, Any] | None = None) -> list[Key]:
    """Return every key of the configuration, in the order of the file."""
    whole = json_schema() if schema is None else schema
    return list(_walk(whole, "", whole))


def _walk(node: dict[str, Any], path: str, whole: dict[str, Any]) -> Iterator[Key]:
    for name, child in node.get("properties", {}).items():
        dotted = f"{path}.{name}" if path else name
        below = _resolved(child, whole)
        text = child.get("description") or below.get("description", "")
        section = "properties" in below
        default = None if section else _default(dotted, child, node)
        yield Key(dotted, _kind(child, whole), default, text)
        yield from _inside(below, dotted, whole)


def _inside(node: dict[str, Any], path: str, whole: dict[str, Any]) -> Iterator[Key]:
    if "properties" in node:
        yield from _walk(node, path, whole)
    for child in _named_by_user(node):
        below = _resolved(child, whole)
        if "properties" in below:
            yield from _walk(below, f"{path}.*", whole)


def _named_by_user(node: dict[str, Any]) -> list[dict[str, Any]]:
    found = list(node.get("patternProperties", {}).values())
    extra = node.get("additionalProperties")
    return [*found, extra] if isinstance(extra, dict) else found


def _resolved(node: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        found = whole["$defs"][node["$ref"].rsplit("/", 1)[1]]
        return {**found, **{k: v for k, v in node.items() if k != "$ref"}}
    for option in (o for word in ("anyOf", "allOf") for o in node.get(word, ())):
        if "$ref" in option:
            return {**node, **_resolved(option, whole)}
    return node


def _kind(node: dict[str, Any], whole: dict[str, Any]) -> str:
    options = node.get("anyOf")
    if options:
        return " or ".join(dict.fromkeys(_kind(option, whole) for option in options))
    node = _resolved(node, whole)
    if "enum" in node or "const" in node:
        words = node.get("enum", [node.get("const")])
        return "a stop reason" if len(words) > 10 else ", ".join(f"`{word}`" for word in words)
    kind = node.get("type")
    if kind == "array":
        return f"list of {_plural(_kind(node.get('items', {}), whole))}"
    if kind == "object":
        if "properties" in node:
            return "section"
        return "mapping to " + " or ".join(_kind(child, whole) for child in _named_by_user(node))
    low, high = node.get("minimum", node.get("exclusiveMinimum")), node.get("maximum")
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false", "null": "null"}
    if kind in ("integer", "number") and high is not None:
        above = "above " if "exclusiveMinimum" in node else ""
        return f"{words[kind]}, {above}{low:,} to {high:,}"
    return words.get(str(kind), "anything")


def _plural(kind: str) -> str:
    return {"text": "texts", "a stop reason": "stop reasons"}.get(kind, kind.replace("number", "numbers"))


def _default(path: str, node: dict[str, Any], parent: dict[str, Any]) -> str:
    *above, name = path.split(".")
    if name in parent.get("required", ()):
        return "none: must be given"
    if "*" in above:
        return f"`{_yaml(node.get('default', {} if node.get('type') == 'object' else None))}`"
    # The schema does not know defaults that are made by a factory; the settings themselves do.
    return f"`{_yaml(_plain(functools.reduce(getattr, (*above, name), Settings())))}`"


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case frozenset():
            return sorted(map(_plain, value))
        case tuple():
            return [_plain(item) for item in value]
        case _:
            return getattr(value, "value", value)


def _yaml(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float() if value == int(value):
            return str(int(value)) if value >= 10 else str(value)
        case list():
            return f"[{', '.join(map(_yaml, value))}]"
        case dict():
            return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
        case _:
            return str(value)


def config_page() -> str:
    """Return the page of configuration keys."""
    lines = [
        "# Configuration",
        "",
        WRITTEN,
        "",
        "A key left out has the value of the profile; `default` unless the file names another. `null` is unlimited.",
        "An unknown key is an error that names the line and the nearest known key. `*` stands for a name of yours: a",
        "tool, a glob of tools, a tenant, a model. The JSON Schema of the file: `interlock check --schema`.",
        "",
        f"Profiles: {', '.join(f'`{name}`' for name in PROFILES)}. `interlock init --profile NAME` writes one.",
    ]
    keys = config_keys()
    sections = {key.path.split(".")[0] for key in keys if "." in key.path}
    section = None
    for key in sorted(keys, key=lambda key: key.path.split(".")[0] in sections):
        head = key.path.split(".")[0]
        head = head if head in sections else "At the top"
        if head != section:
            section = head
            lines += ["", f"## {head}", "", "| Key | Value | Default | Means |", "|---|---|---|---|"]
        lines.append(f"| `{key.path}` | {key.kind} | {key.default or ''} | {key.text.replace('|', ', ')} |")
    return "\n".join(lines) + "\n"


def commands() -> Iterator[tuple[str, str, Any]]:
    """Yield (panel, words, command) of every verb; of a group, each verb in it."""
    for verb in VERBS:
        module = importlib.import_module(f"interlock.cli.{verb.module}")
        command = get_group(module.app).commands[verb.name]
        below = getattr(command, "commands", None)
        if below is None:
            yield verb.panel, f"interlock {verb.name}", command
        else:
            yield from ((verb.panel, f"interlock {verb.name} {name}", child) for name, child in below.items())


def cli_page() -> str:
    """Return the page of commands."""
    lines = [
        "# Command line",
        "",
        WRITTEN,
        "",
        "Every command takes `--json` for machines. Progress goes to stderr. Exit codes: 0 is success, 1 an error, 2 a",
        "wrong usage, 10 to 49 a [stop reason](stop-reasons.md).",
    ]
    panel = None
    for named, words, command in commands():
        if named != panel:
            panel = named
            lines += ["", f"## {panel}"]
        lines += ["", f"### {words}", "", _help(command), "", "```text", _usage(words, command), "```", ""]
        lines += _parameters(command)
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.rstrip() + "\n"


def _help(command: Any) -> str:
    return "\n".join(line.strip() for line in (command.help or "").split("\f")[0].strip().splitlines())


def _usage(words: str, command: Any) -> str:
    return " ".join([words, *(_metavar(p) for p in command.params if _is_argument(p)), "[OPTIONS]"])


def _is_argument(parameter: Any) -> bool:
    return not parameter.opts[0].startswith("-")


def _metavar(parameter: Any) -> str:
    word = (parameter.metavar or parameter.name).upper().strip("[]")
    word += "..." if parameter.nargs != 1 and not word.endswith("...") else ""
    return word if parameter.required else f"[{word}]"


def _parameters(command: Any) -> list[str]:
    rows = []
    for parameter in command.params:
        text = (getattr(parameter, "help", "") or "").replace("|", ", ")
        if _is_argument(parameter):
            rows.append(f"| `{_metavar(parameter)}` | {text} |")
        elif not getattr(parameter, "hidden", False) and parameter.name != "help":
            names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
            rows.append(f"| {names} | {text}{' Required.' if parameter.required else ''} |")
    return ["| | |", "|---|---|", *rows] if rows else []


def reasons_page() -> str:
    """Return the page of stop reasons."""
    lines = [
        "# Stop reasons",
        "",
        WRITTEN,
        "",
        "Why a run ended: one closed list. A reason is written once; the first specific one wins. The exit code is",
        "that of a command whose run ended so; the severity is how loudly to alert.",
        "`interlock runbook REASON` shows the runbook.",
        "",
        "| Reason | Exit code | Severity | The run | Runbook |",
        "|---|---|---|---|---|",
    ]
    for reason in StopReason:
        state = "waits for a person" if reason in PARKING_REASONS else "has ended"
        runbook = f"[{reason}](../../src/interlock/runbooks/{reason}.md)"
        lines.append(f"| `{reason}` | {EXIT_CODES[reason]} | {SEVERITIES[reason]} | {state} | {runbook} |")
    return "\n".join(lines) + "\n"


def checklist_page() -> str:
    """Return the article's checklist, with what meets each item."""
    lines = [
        "# The article's checklist",
        "",
        WRITTEN,
        "",
        "Each item, what provides it, and how many tests prove it. `make checklist` switches each guard off in a copy",
        "of the source and requires that one of these tests fails. The manifest is `tests/requirements.py`.",
    ]
    for section, items in SECTIONS.items():
        lines += ["", f"## {section}", "", "| Item | Part | Guard | Tests |", "|---|---|---|---|"]
        for item in items:
            for met in (r for r in REQUIREMENTS if r.item == item):
                guard = f"[{met.guard}](../guards/{met.guard}.md)" if met.guard in GUARDS else met.guard
                state = f"not in this version: {met.not_yet}" if met.not_yet else str(len(met.tests))
                lines.append(f"| {item} | {met.part} | {guard} | {state} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Return the reference pages as they should be."""
    return {
        PAGES / "api.md": api_page(),
        PAGES / "checklist.md": checklist_page(),
        PAGES / "config.md": config_page(),
        PAGES / "cli.md": cli_page(),
        PAGES / "stop-reasons.md": reasons_page(),
        ROOT / "docs" / "forensics" / "tree.md": tree_page(),
    }


def main(arguments: list[str]) -> int:
    """Write the pages, or (`--check`) name those that differ."""
    PAGES.mkdir(parents=True, exist_ok=True)
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if "--check" in arguments:
            print(f"{path.relative_to(ROOT)} is not what the code says: run `make docs`", file=sys.stderr)
        else:
            path.write_text(pages()[path], encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)
    return int("--check" in arguments and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
