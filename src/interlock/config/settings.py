"""The configuration: from YAML to frozen values, or an error that names the line and what to write instead.

A key left out has the value of the profile (`default` unless the file or the caller names another); null is
unlimited. Paths inside a file are taken from where the file stands.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from interlock.config.complaints import explain
from interlock.config.retention import ages
from interlock.config.sections import Settings
from interlock.config.shape import nearest_key, unknown_keys, without_empty
from interlock.config.tool_sections import DEFAULT_TIMEOUT_S
from interlock.config.yaml_lines import Document, parse_yaml
from interlock.core.errors import ConfigError
from interlock.validation.expressions import compile_expression

__all__ = ["PROFILES", "Settings", "json_schema", "load_settings", "profile_text", "store_url"]

PROFILES = ("default", "article", "support", "coding", "research")
STORE_VARIABLE = "INTERLOCK_STORE"
_SHIPPED = Path(__file__).with_name("profiles")


def load_settings(source: str | Path | Mapping[str, Any] | None = None, *, profile: str | None = None) -> Settings:
    """Return the configuration of a file, of plain data of the same shape, or (None) of a profile alone.

    Args:
        source: Path of a YAML file, a mapping, or None.
        profile: Overrides the file's `profile`.

    Raises:
        ConfigError: Names `file:line`, the key and what to write.
    """
    if source is None and profile in {None, "default"}:
        return Settings()
    document, where, home = _read(source)
    _refuse_unknown(document, where)
    data = without_empty(document.data)
    _refuse_empty_allow(document, where)
    name = profile or data.get("profile") or "default"
    if name not in PROFILES:
        line = document.line_of(("profile",)) if profile is None else None
        raise ConfigError(_at(where, line, f"no profile is called {name!r}: it must be one of {', '.join(PROFILES)}"))
    merged = _merged(_profile_data(name), data) | {"profile": name}
    _rest_on_default_timeout(merged)
    _check_invariants(data, document, where)
    try:
        settings = _adapter().validate_json(json.dumps(merged))
    except ValidationError as error:
        raise ConfigError(_complaints(error, merged, document, where)) from None
    _check_ages(settings, document, where)
    return _beside(settings, home)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file, with a description of every key."""
    schema = _adapter().json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Interlock configuration"
    for part in (schema, *schema.get("$defs", {}).values()):
        _describe(part)
    return schema


def profile_text(name: str) -> str:
    """Return the YAML of a shipped profile, comments included."""
    if name not in PROFILES:
        raise ConfigError(f"no profile is called {name!r}: it must be one of {', '.join(PROFILES)}")
    return (_SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def store_url(settings: Settings, explicit: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Return the store to open: what was asked for, else INTERLOCK_STORE, else the file's, else `interlock.db`.

    A plain path stands for the SQLite file of that name.
    """
    url = explicit or environ.get(STORE_VARIABLE) or settings.store or "interlock.db"
    return url if "://" in url else f"sqlite:///{url}"


@functools.cache
def _adapter() -> TypeAdapter[Settings]:
    return TypeAdapter(Settings)


def _read(source: str | Path | Mapping[str, Any] | None) -> tuple[Document, str, Path | None]:
    if source is None:
        return Document({}, {}), "configuration", None
    if isinstance(source, Mapping):
        data = _plain(source, ())
        return Document(data, {}), "configuration", None
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; `interlock init` writes one") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text: save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse_yaml(text, str(path)), str(path), path.absolute().parent


def _plain(value: Any, path: tuple[str, ...]) -> Any:
    """Return `value` as JSON would hold it, so that data and files are judged alike."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Path):
        return str(value)
    if len(path) > 20:
        raise ConfigError(f"{'.'.join(path[:4])}…: nested too deeply")
    if isinstance(value, Mapping):
        return {str(key): _plain(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        return [_plain(item, (*path, str(i))) for i, item in enumerate(value)]
    raise ConfigError(f"{'.'.join(path)}: {type(value).__name__} cannot stand in a configuration")


def _refuse_unknown(document: Document, where: str) -> None:
    lines = [
        f"{_at(where, document.line_of(path), '.'.join(path))}: unknown key; {nearest_key(path)}"
        for path in unknown_keys(document.data)
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def _refuse_empty_allow(document: Document, where: str) -> None:
    # Left out, `allow` takes what the code registers; emptied by hand it must not mean the same.
    tools = document.data.get("tools")
    tenants = document.data.get("tenants")
    places: dict[tuple[str, ...], Any] = {("tools",): tools}
    if isinstance(tenants, Mapping):
        places |= {("tenants", name): tenant for name, tenant in tenants.items()}
    for path, section in places.items():
        if isinstance(section, Mapping) and "allow" in section and section["allow"] is None:
            here = (*path, "allow")
            text = f"{'.'.join(here)}: is empty: write [] to allow nothing, or leave the key out"
            raise ConfigError(_at(where, document.line_of(here), text))


def _check_invariants(data: Mapping[str, Any], document: Document, where: str) -> None:
    tools = data.get("tools")
    invariants = tools.get("invariants") if isinstance(tools, Mapping) else None
    for name, expressions in invariants.items() if isinstance(invariants, Mapping) else ():
        for i, text in enumerate(expressions if isinstance(expressions, list) else ()):
            try:
                compile_expression(str(text), key=f"tools.invariants.{name}")
            except ConfigError as error:
                line = document.line_of(("tools", "invariants", name, str(i)))
                raise ConfigError(_at(where, line, str(error))) from None


def _check_ages(settings: Settings, document: Document, where: str) -> None:
    try:
        ages(settings)
    except ConfigError as error:
        line = document.line_of(("retention", "keys_days")) or document.line_of(("tools", "dedupe_window_s"))
        raise ConfigError(_at(where, line, str(error))) from None


def _profile_data(name: str) -> dict[str, Any]:
    # The defaults of the sections *are* profile `default`; a test holds its file equal to them.
    if name == "default":
        return {}
    return parse_yaml(profile_text(name), f"profile {name}").data


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(under)
    for key, value in over.items():
        below = out.get(key)
        out[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return out


def _rest_on_default_timeout(data: Mapping[str, Any]) -> None:
    tools = data.get("tools")
    timeouts = tools.get("timeouts_s") if isinstance(tools, Mapping) else None
    if isinstance(timeouts, dict):
        timeouts.setdefault("default", DEFAULT_TIMEOUT_S)


def _complaints(error: ValidationError, data: Mapping[str, Any], document: Document, where: str) -> str:
    faults = [(tuple(str(p) for p in f["loc"] if p != "[key]"), f) for f in error.errors(include_url=False)]
    lines: list[tuple[int, str]] = []
    for path, fault in faults:
        if any(len(other) > len(path) and other[: len(path)] == path for other, _ in faults):
            continue  # a list whose items are wrong is not also too short
        text = explain(path, fault["type"], fault.get("ctx", {}), _value_at(data, path))
        line = document.line_of(path)
        lines.append((line or 0, f"{_at(where, line, '.'.join(path))}: {text}"))
    return "\n".join(text for _, text in sorted(lines))


def _value_at(data: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        try:
            data = data[int(key)] if isinstance(data, list) else data[key]
        except (KeyError, IndexError, TypeError, ValueError):
            return key
    return data


def _at(where: str, line: int | None, text: str) -> str:
    return f"{where}:{line}: {text}" if line else f"{where}: {text}"


def _beside(settings: Settings, home: Path | None) -> Settings:
    """Return the settings with relative paths taken from the directory of their file."""
    if home is None:
        return settings
    store = settings.store or "sqlite:///interlock.db"
    path = store.removeprefix("sqlite:///") if store.startswith("sqlite:///") else store
    if "://" not in path and path != ":memory:":
        store = f"sqlite:///{home / path}"
    record, to = settings.record.path, settings.logging.to
    return replace(
        settings,
        store=store,
        record=replace(settings.record, path=str(home / record) if record else None),
        logging=replace(settings.logging, to=to if to == "stderr" else str(home / to)),
    )


def _describe(part: dict[str, Any]) -> None:
    text = str(part.get("description", ""))
    summary, _, attributes = text.partition("Attributes:")
    part["description"] = " ".join(summary.split())
    for line in attributes.splitlines():
        name, colon, description = line.strip().partition(": ")
        if colon and name in part.get("properties", {}):
            part["properties"][name]["description"] = description
