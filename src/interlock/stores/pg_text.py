"""Any text survives: PostgreSQL has no character 0, so that one is written as two others, and read back."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["read_text", "write_text"]

# U+241B, the picture of ESC: hardly anybody's tools or tenants are named with it, and where they are, it is doubled.
_ESCAPE = "\u241b"
_ESCAPED = re.compile(f"{_ESCAPE}(.)")


def write_text(text: str) -> str:
    """Return the text as it is stored."""
    if "\x00" in text or _ESCAPE in text:
        return text.replace(_ESCAPE, _ESCAPE + _ESCAPE).replace("\x00", _ESCAPE + "0")
    return text


def read_text(value: Any) -> Any:
    """Return the text again; what is no text is returned as it is."""
    if isinstance(value, str) and _ESCAPE in value:
        return _ESCAPED.sub(lambda found: "\x00" if found[1] == "0" else _ESCAPE, value)
    return value
