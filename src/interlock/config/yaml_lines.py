"""YAML with the line of every key, so that an error can say where.

Scalars follow YAML 1.2 (`on`, `off`, `yes` and `no` are text, `12:30` is no number), because a tool or a
mode may well be called so. Duplicate keys, numbers that are not finite, tags, cycles and alias bombs are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from interlock.core.errors import ConfigError

__all__ = ["Document", "parse_yaml"]

Path = tuple[str, ...]

MAX_BYTES = 4_000_000
MAX_NODES = 200_000
MAX_DEPTH = 50
MAX_DIGITS = 40

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: value for value, text in ((True, "true"), (False, "false")) for word in (text, text.title(), text.upper())
}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Mark(Protocol):
    line: int
    column: int


class _Node(Protocol):
    """A node as PyYAML composes it; `id` is mapping, sequence or scalar."""

    id: str
    tag: str
    value: Any
    style: str | None
    start_mark: _Mark


@dataclass(frozen=True, slots=True)
class Document:
    """What a YAML text says, and on which line.

    Attributes:
        data: The top-level mapping; keys are text.
        lines: Line (from 1) of each key or item, by its path.
    """

    data: dict[str, Any]
    lines: Mapping[Path, int]

    def line_of(self, path: Path) -> int | None:
        """Return the line of `path`, or of the nearest key above it."""
        for end in range(len(path), 0, -1):
            if (line := self.lines.get(path[:end])) is not None:
                return line
        return None


def parse_yaml(text: str, where: str) -> Document:
    """Parse one YAML document whose top level is a mapping; `where` names it in errors.

    Raises:
        ConfigError: It is not such a document; says `where:line` and what to do.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: larger than {MAX_BYTES // 1_000_000} MB: this is not a configuration")
    # A twentieth of what starting costs: only for those who have a file.
    import yaml  # noqa: PLC0415

    try:
        root: Any = yaml.compose(text, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(_explain(error, where, text)) from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None
    reader = _Reader(where)
    if root is None:
        return Document({}, reader.lines)
    if root.id != "mapping":
        raise ConfigError(f"{where}:{_line(root)}: the top level must be keys, like `agent:` and `tools:`")
    return Document(reader.mapping(root, (), 0), reader.lines)


class _Reader:
    """Turns nodes into plain values and notes their lines."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[Path, int] = {}
        self.nodes = 0

    def value(self, node: _Node, path: Path, depth: int) -> Any:
        # An alias stands for its anchor again: counting what is expanded stops bombs, the depth stops cycles.
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise self.error(node, "nested too deeply or too long: aliases (`*name`) may not multiply or go in circles")
        if node.id == "mapping":
            return self.mapping(node, path, depth)
        if node.id == "sequence" and node.tag.endswith(":seq"):
            return [self.item(child, (*path, str(i)), depth) for i, child in enumerate(node.value)]
        if node.id == "scalar" and node.tag.startswith("tag:yaml.org,2002:"):
            return self.scalar(node)
        raise self.error(node, f"the tag {node.tag} is not supported: remove it")

    def item(self, node: _Node, path: Path, depth: int) -> Any:
        self.lines.setdefault(path, _line(node))
        return self.value(node, path, depth + 1)

    def mapping(self, node: _Node, path: Path, depth: int) -> dict[str, Any]:
        if not node.tag.endswith(":map"):
            raise self.error(node, f"the tag {node.tag} is not supported: remove it")
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.id != "scalar":
                raise self.error(key_node, "a key must be one word or a quoted text")
            key: str = key_node.value
            if key == "<<" and not key_node.style:
                raise self.error(key_node, "merge keys (`<<`) are not supported: write the keys out")
            here = (*path, key)
            if key in out:
                raise self.error(key_node, f"{'.'.join(here)} stands here twice; first on line {self.lines[here]}")
            self.lines[here] = _line(key_node)
            out[key] = self.value(value_node, here, depth + 1)
        return out

    def scalar(self, node: _Node) -> Any:
        text: str = node.value
        if node.style:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if len(text) > MAX_DIGITS:
            return text
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
            return number
        if _NOT_FINITE.fullmatch(text) or _FLOAT.fullmatch(text):
            raise self.error(node, f"{text} is not a finite number: write null where unlimited is meant")
        return text

    def error(self, node: _Node, message: str) -> ConfigError:
        return ConfigError(f"{self.where}:{_line(node)}: {message}")


def _line(node: _Node) -> int:
    return int(node.start_mark.line) + 1


def _explain(error: Exception, where: str, text: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if mark is None:
        return f"{where}: not valid YAML: {problem}"
    lines = text.splitlines()
    tab = mark.line < len(lines) and lines[mark.line].lstrip(" ").startswith("\t")
    hint = "; indent with spaces, not tabs" if tab else ""
    return f"{where}:{mark.line + 1}: not valid YAML (column {mark.column + 1}): {problem}{hint}"
