"""What replay needs is kept unreadable to whoever has the file but not the key.

A sealed value is `1 | key id (4) | nonce (12) | AES-256-GCM`, bound to the row it belongs to, so that values
cannot be swapped between rows. A plain one is `0 | value`. The key comes from `INTERLOCK_KEY` (32 bytes as
64 hexadecimal digits; several, separated by commas: the first seals, all open), else from `interlock.key`
beside the database, made once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from interlock.core.errors import ConfigError

__all__ = ["Replay", "Seal", "Unreadable", "load_keys"]

KEY_FILE = "interlock.key"
KEY_VARIABLE = "INTERLOCK_KEY"
KEY_BYTES = 32
_PLAIN, _SEALED = b"\x00", b"\x01"
_ID_BYTES, _NONCE_BYTES = 4, 12
_HEAD = 1 + _ID_BYTES + _NONCE_BYTES
_DRAWN = 128


class Replay(StrEnum):
    """What becomes of results: sealed, not kept, or kept as they are."""

    ON = "on"
    OFF = "off"
    PLAINTEXT = "plaintext"


class Unreadable(Exception):
    """The value is sealed with a key that we do not have, or was changed, or belongs to another row."""


class Seal:
    """Seals and opens values.

    Args:
        replay: OFF keeps nothing: `close` returns None.
        keys: 32 bytes each; the first one seals. Needed for ON, and to open what was sealed earlier.
    """

    def __init__(self, replay: Replay, keys: tuple[bytes, ...] = ()) -> None:
        self.replay = replay
        self._keys = keys
        self._seals = replay is Replay.ON
        self._keeps = replay is not Replay.OFF
        self._prefix = _SEALED + (_key_id(keys[0]) if keys else b"")
        self._drawn: list[bytes] = []
        self._drawn_in = os.getpid()
        if not keys and replay is Replay.ON:
            raise ConfigError("replay: on needs a key: set INTERLOCK_KEY, or replay: off")

    @cached_property
    def _ciphers(self) -> dict[bytes, Any]:
        # Imported with the first value that is sealed or opened: the library costs a thirtieth of starting.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        return {_key_id(key): AESGCM(key) for key in self._keys}

    @cached_property
    def _first_cipher(self) -> Any:
        return self._ciphers[_key_id(self._keys[0])]

    def close(self, value: bytes | None, row: bytes) -> bytes | None:
        """Return what to store of `value` in the row named `row`; None where nothing is kept."""
        if value is None:
            return None
        if not self._seals:
            return _PLAIN + value if self._keeps else None
        nonce = self._nonce()
        sealed: bytes = self._first_cipher.encrypt(nonce, value, row)
        return self._prefix + nonce + sealed

    def _nonce(self) -> bytes:
        """Return chance that was never used; drawn by the hundred, since asking the system lets other threads in.

        Not the clock's chance: a nonce that repeats, as a seeded one does, gives the key away.
        """
        pid = os.getpid()
        if pid != self._drawn_in:
            self._drawn, self._drawn_in = [], pid  # in a fork's child: what is left here is our parent's
        try:
            return self._drawn.pop()
        except IndexError:
            chance = os.urandom(_NONCE_BYTES * _DRAWN)
            fresh = [chance[i : i + _NONCE_BYTES] for i in range(0, len(chance), _NONCE_BYTES)]
            nonce = fresh.pop()
            self._drawn.extend(fresh)
            return nonce

    def open(self, stored: bytes | None, row: bytes) -> bytes | None:
        """Return the value again.

        Raises:
            Unreadable: We have not the key, or these are not the bytes that were stored in this row.
        """
        if stored is None:
            return None
        if stored[:1] == _PLAIN:
            return stored[1:]
        cipher = self._ciphers.get(stored[1 : 1 + _ID_BYTES])
        if stored[:1] != _SEALED or cipher is None:
            raise Unreadable("sealed with a key that is not in INTERLOCK_KEY or interlock.key")
        try:
            value: bytes = cipher.decrypt(stored[1 + _ID_BYTES : _HEAD], stored[_HEAD:], row)
        except Exception as error:
            raise Unreadable("the sealed value does not fit its row: it was changed, or moved") from error
        return value


def load_keys(beside: Path | None, environ: Mapping[str, str], *, make: bool) -> tuple[bytes, ...]:
    """Return the sealing keys: of the environment, else of the key file beside the database (made if `make`).

    Args:
        beside: The database; None where there is no file, and so no key file.

    Raises:
        ConfigError: A key that is not 32 bytes, or a key file that can be neither read nor written.
    """
    given = environ.get(KEY_VARIABLE, "").strip()
    if given:
        return tuple(_parse(part, KEY_VARIABLE) for part in given.split(","))
    if beside is None:
        return (os.urandom(KEY_BYTES),) if make else ()
    path = beside.with_name(KEY_FILE)
    try:
        if make:
            _make_key_file(path)
        elif not path.exists():
            return ()
        return (_parse(path.read_text(encoding="ascii"), str(path)),)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read or made ({error}): set INTERLOCK_KEY, or replay: off") from error


def _make_key_file(path: Path) -> None:
    """Put a whole key file in place, or leave the one that another process has just put there."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(os.urandom(KEY_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _parse(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{where}: a key is 32 bytes, written as 64 hexadecimal digits")
    return key


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"interlock key id" + key).digest()[:_ID_BYTES]
