"""A fault in one line, as a command line takes it: `KIND`, `KIND_20%` or `429_errors`, then `key=value` of a suite."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from interlock.chaos.faults import Fault, Kind
from interlock.chaos.wire import WireFault, WireKind
from interlock.config.complaints import explain
from interlock.config.yaml_lines import parse_yaml
from interlock.core.errors import ConfigError

__all__ = ["spoken_fault", "spoken_wire_fault"]

T = TypeVar("T", Fault, WireFault)

_WORD = re.compile(r"(.+?)(?:_([0-9]{1,3})%)?")
_ERRORS = re.compile(r"([0-9]{3})_errors")
_PAIR = re.compile(r"\s+([A-Za-z_]+)=(.*?)(?=\s+[A-Za-z_]+=|\s*$)", re.DOTALL)
_ARTICLE_WORDS = {"schema_mismatch": Kind.SCHEMA_DRIFT.value, "partial_results_forever": Kind.PARTIAL_FOREVER.value}


def spoken_fault(text: str) -> Fault:
    """Return the fault of a suite that `text` says.

    Raises:
        ConfigError: It says none; names the nearest kind or key.
    """
    return _fault(text, Fault, [kind.value for kind in Kind], _ARTICLE_WORDS)


def spoken_wire_fault(text: str) -> WireFault:
    """Return the fault of the wire that `text` says.

    Raises:
        ConfigError: It says none; names the nearest kind or key.
    """
    return _fault(text, WireFault, [kind.value for kind in WireKind], {})


def _fault(text: str, shape: type[T], kinds: list[str], words: Mapping[str, str]) -> T:
    where = f"--fault {text!r}"
    word, _, rest = text.strip().partition(" ")
    said = _pairs(" " + rest, where)
    found = _of_word(word, where)
    name = words.get(found["kind"], found["kind"])
    if name not in kinds:
        near = _nearest(name, [*words, "429_errors", *kinds])
        raise ConfigError(f"{where}: no fault is called {name or 'nothing'}{near}")
    names = [each.name for each in fields(shape) if each.name not in {"kind", "when"}]
    for key in said:
        if key not in names:
            raise ConfigError(f"{where}: {key}: unknown key{_nearest(key, names)}")
    try:
        return TypeAdapter(shape).validate_json(json.dumps({**found, "kind": name, **said}))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        path = tuple(str(part) for part in fault["loc"])
        value = fault["input"]
        raise ConfigError(
            f"{where}: {'.'.join(path)}: {explain(path, fault['type'], fault.get('ctx', {}), value)}"
        ) from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _of_word(word: str, where: str) -> dict[str, Any]:
    match = _WORD.fullmatch(word)
    name, percent = (match[1], match[2]) if match else (word, None)
    found: dict[str, Any] = {"kind": name}
    if percent is not None:
        if not 1 <= int(percent) <= 100:
            raise ConfigError(f"{where}: the share must be 1% to 100%")
        found["probability"] = int(percent) / 100
    errors = _ERRORS.fullmatch(name)
    return {**found, "kind": Kind.HTTP.value, "status": int(errors[1])} if errors else found


def _pairs(rest: str, where: str) -> dict[str, Any]:
    if not rest.strip():
        return {}
    found: dict[str, Any] = {}
    end = 0
    for pair in _PAIR.finditer(rest):
        if rest[end : pair.start()].strip():
            break
        if pair[1] in found:
            raise ConfigError(f"{where}: {pair[1]} stands twice")
        try:
            # A glob that begins with a star would be an alias of YAML.
            text = f"'{pair[2]}'" if pair[2].startswith("*") else pair[2]
            found[pair[1]] = parse_yaml(f"value: {text}\n", where).data["value"]
        except ConfigError:
            raise ConfigError(f"{where}: {pair[1]}: {pair[2]!r} is no value: write a number, text or [a, b]") from None
        end = pair.end()
    if rest[end:].strip():
        raise ConfigError(f"{where}: cannot be read from {rest[end:].strip()!r} on: write KIND key=value …")
    return found


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
