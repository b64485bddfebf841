"""What the tools of a recorded data set do, read from `effects.yaml` or a user's file of the same shape."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from interlock.core.calls import Effect, OnUnknown, Repeat
from interlock.core.errors import ConfigError
from interlock.forensics.traces import ErrorKind

__all__ = ["SetEffects", "ToolEffect", "load_effects"]

_GLOBS = ("reads", "writes", "natural", "tell", "allow_repeat", "exempt")
_DEFAULT_ERRORS: Mapping[ErrorKind, int | str] = MappingProxyType(
    {
        "bad_arguments": 400,
        "not_found": 404,
        "auth": 403,
        "rate_limit": 429,
        "timeout": "timeout",
        "server_or_network": 503,
        "business_or_other": 422,
    }
)


@dataclass(frozen=True, slots=True)
class ToolEffect:
    """What one tool is registered with; the words are those of `@gate.tool`."""

    effect: Effect
    on_unknown: OnUnknown = OnUnknown.STOP
    natural: bool = False
    repeat: Repeat = Repeat.COLLAPSE


@dataclass(frozen=True, slots=True)
class SetEffects:
    """The tools of one data set; each field but `errors` holds globs (see `effects.yaml`).

    Attributes:
        errors: Kind of a recorded failure to how it comes back: an HTTP status, `timeout` or `output`.
    """

    reads: Sequence[str] = ()
    writes: Sequence[str] = ()
    natural: Sequence[str] = ()
    tell: Sequence[str] = ()
    allow_repeat: Sequence[str] = ()
    exempt: Sequence[str] = ()
    errors: Mapping[ErrorKind, int | str] = field(default_factory=lambda: _DEFAULT_ERRORS)

    def states(self, tool: str) -> bool:
        """Whether anything is said of this tool."""
        return any(
            _matches(tool, globs) for globs in (self.reads, self.writes, self.natural, self.tell, self.allow_repeat)
        )

    def of(self, tool: str) -> ToolEffect:
        """Return what this tool is registered with; one of which nothing is said is a write."""
        if _matches(tool, self.reads) and not _matches(tool, self.writes):
            return ToolEffect(Effect.READ)
        natural = _matches(tool, self.natural)
        tell = not natural and _matches(tool, self.tell)
        on_unknown = OnUnknown.RESEND if natural else OnUnknown.TELL if tell else OnUnknown.STOP
        repeat = Repeat.ALLOW if _matches(tool, self.allow_repeat) else Repeat.COLLAPSE
        return ToolEffect(Effect.WRITE, on_unknown, natural, repeat)


def load_effects(path: str | Path | None = None) -> Mapping[str, SetEffects]:
    """Return data set to effects: from a file, or the ones we state for the sets we know.

    Raises:
        ConfigError: The file is not YAML of this shape; names the set and the key.
    """
    if path is None:
        return _ours()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    return _parsed(text, str(path))


@functools.cache
def _ours() -> Mapping[str, SetEffects]:
    return _parsed(resources.files(__package__).joinpath("effects.yaml").read_text(encoding="utf-8"), "effects.yaml")


def _parsed(text: str, where: str) -> Mapping[str, SetEffects]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: data sets by name are expected")
    return MappingProxyType({str(name): _set(value, f"{where}: {name}") for name, value in data.items()})


def _set(value: Any, where: str) -> SetEffects:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: an object with {', '.join(_GLOBS)} or errors is expected")
    unknown = value.keys() - {*_GLOBS, "errors"}
    if unknown:
        raise ConfigError(f"{where}: unknown key {min(map(str, unknown))!r} (known: {', '.join(_GLOBS)}, errors)")
    globs = {}
    for key in _GLOBS:
        found = value.get(key) or ()
        if isinstance(found, str) or not all(isinstance(glob, str) for glob in found):
            raise ConfigError(f"{where}.{key}: a list of globs is expected")
        globs[key] = tuple(found)
    return SetEffects(**globs, errors=_errors(value.get("errors") or {}, f"{where}.errors"))


def _errors(value: Any, where: str) -> Mapping[ErrorKind, int | str]:
    errors: dict[ErrorKind, int | str] = dict(_DEFAULT_ERRORS)
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: kinds of failures are expected")
    for kind, comes_back_as in value.items():
        if kind not in errors:
            raise ConfigError(f"{where}: unknown kind {kind!r} (known: {', '.join(errors)})")
        is_status = isinstance(comes_back_as, int) and 400 <= comes_back_as < 600
        if not is_status and comes_back_as not in {"timeout", "output"}:
            raise ConfigError(f"{where}.{kind}: a status from 400 to 599, `timeout` or `output` is expected")
        errors[kind] = comes_back_as
    return MappingProxyType(errors)


def _matches(tool: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(tool, glob) for glob in globs)
