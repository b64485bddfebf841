"""The framework's package: a clear word where it is absent, or of a version that nobody has tried."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import warnings
from collections.abc import Iterator

from interlock.core.errors import ConfigError

__all__ = ["MissingExtra", "UntestedVersion", "needs", "tested"]


class MissingExtra(ConfigError, ImportError):
    """The framework of an adapter is not installed."""


class UntestedVersion(UserWarning):
    """The framework is of a version that this release was not tested with."""


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn an ImportError into one that says what to install.

    Raises:
        MissingExtra: A `ConfigError` and an `ImportError`.
    """
    try:
        yield
    except MissingExtra:
        raise
    except ImportError as error:
        text = f'this adapter needs its framework: pip install "interlock[{extra}]" (it failed with: {error})'
        raise MissingExtra(text) from error


@functools.cache
def _installed(distribution: str) -> str:
    return importlib.metadata.version(distribution)


def tested(distribution: str, *versions: str) -> None:
    """Warn, once a process, if the installed version of `distribution` is none of `versions` (`2.68`: any 2.68.x)."""
    installed = _installed(distribution)
    if any(f"{installed}.".startswith(f"{version}.") for version in versions):
        return
    text = f"{distribution} {installed} is not a version that Interlock was tested with ({', '.join(versions)})"
    warnings.warn(UntestedVersion(text), stacklevel=3)
