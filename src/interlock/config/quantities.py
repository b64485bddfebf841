"""The quantities of the configuration: what a name, a glob, a count or a length of time may be.

Upper bounds catch a slip of the hand (seconds written as milliseconds); who wants no cap writes null.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

NAME_CHARACTERS = "A-Za-z0-9_.:/"

Name = Annotated[str, Field(pattern=rf"^[{NAME_CHARACTERS}-]{{1,128}}$")]
Glob = Annotated[str, Field(pattern=rf"^[{NAME_CHARACTERS}*?-]{{1,128}}$")]
Globs = tuple[Glob, ...]
Word = Annotated[str, Field(min_length=1, max_length=256)]

Count = Annotated[int, Field(ge=1, le=1_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000)]
Tokens = Annotated[int, Field(ge=1, le=100_000_000_000)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]
Lifetime = Annotated[float, Field(gt=0, le=100 * 366 * 86_400)]
Days = Annotated[float, Field(ge=0, le=36_500)]
AttemptSeconds = Annotated[float, Field(gt=0, le=86_400)]
Usd = Annotated[float, Field(ge=0, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1, le=1_000_000_000)]


def nothing() -> Mapping[str, Any]:
    """Return the empty mapping that stands where nothing is configured."""
    return MappingProxyType({})
