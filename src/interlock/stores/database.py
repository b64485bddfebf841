"""Opens a SQLite file that an intent can be trusted to, or says what is wrong with it and what to do.

WAL with `synchronous=FULL`: a commit is on the disk when it returns, and readers go on beside the writer.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from interlock.core.errors import ConfigError, InterlockError, StoreUnavailable

__all__ = ["SCHEMA_VERSION", "connect", "connect_reader", "is_busy", "is_store_fault", "migrate", "translate"]

# "ILCK": tells our files from other people's SQLite files.
APPLICATION_ID = 0x494C434B
SECRET_BYTES = 32
_SQL = Path(__file__).with_name("sql")
_MIGRATIONS = ("001_initial.sql", "002_open_claims.sql", "003_after_crashes.sql", "004_memory.sql", "005_parts.sql")
SCHEMA_VERSION = len(_MIGRATIONS)

_ADVICE = {
    sqlite3.SQLITE_BUSY: "another program holds it locked: close it, or find it with `fuser`",
    sqlite3.SQLITE_LOCKED: "another program holds it locked: close it, or find it with `fuser`",
    sqlite3.SQLITE_PROTOCOL: "another program holds it locked: close it, or find it with `fuser`",
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "it is read-only: make the file and its folder writable, or set `store` elsewhere",
    sqlite3.SQLITE_PERM: "permission denied: make the file and its folder writable, or set `store` elsewhere",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: create its folder and make it writable, or set `store` elsewhere",
    sqlite3.SQLITE_IOERR: "the disk reports an error: check the disk, and that the file is not on a network share",
    sqlite3.SQLITE_CORRUPT: "it is damaged: stop all workers and restore it from a backup",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite file: restore it from a backup, or set `store` elsewhere",
    sqlite3.SQLITE_NOMEM: "out of memory",
}
_CONFIG_FAULTS = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def is_store_fault(error: sqlite3.Error) -> bool:
    """Whether the store is at fault (and every write fails), not one statement and its values."""
    return _code(error) in _ADVICE


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else has the file to himself at this moment."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def translate(error: sqlite3.Error | OSError, path: str, *, opening: bool = False) -> InterlockError:
    """Return the error of our tree that says what to do; a file that will never do is a `ConfigError`."""
    if isinstance(error, OSError):
        return StoreUnavailable(
            f"store {path}: {error.strerror or error}: create its folder and make it writable, or set `store` elsewhere"
        )
    code = _code(error)
    advice = _ADVICE.get(code, "set `store` elsewhere, or run `interlock doctor`")
    text = f"store {path}: {error}: {advice}"
    return ConfigError(text) if opening and code in _CONFIG_FAULTS else StoreUnavailable(text)


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def connect(path: str, *, patience_s: float) -> sqlite3.Connection:
    """Open the connection that writes, creating the file (0600) if there is none.

    Args:
        path: Of the file, or ":memory:".
        patience_s: How long a statement waits for another program's lock.
    """
    if path != ":memory:" and not Path(path).exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=patience_s, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = full")
        # SQLite's own default, said aloud: a longer log moves less often, but then holds one commit up for 5 ms of CPU
        # and two waits for the disk; throughput is the same from 1,000 to 16,000 pages.
        db.execute("pragma wal_autocheckpoint = 1000")
        db.execute("pragma journal_size_limit = 67108864")
        db.execute("pragma foreign_keys = on")
        # What is deleted is overwritten: a forgotten text must not stay readable in the file.
        db.execute("pragma secure_delete = on")
    except BaseException:
        db.close()
        raise
    return db


def connect_reader(path: str) -> sqlite3.Connection:
    """Open a connection that can only read, and that waits for nobody: it may be used on an event loop."""
    db = sqlite3.connect(
        f"{Path(path).absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=0.0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=64,
    )
    db.execute("pragma query_only = on")
    return db


def migrate(db: sqlite3.Connection, path: str) -> bytes:
    """Bring the file to this version's schema, once, and return the store's secret.

    Raises:
        ConfigError: The file belongs to another program, or to a newer Interlock.
    """
    db.execute("begin")
    try:
        version = _version(db, path)
    finally:
        db.execute("rollback")
    if version < SCHEMA_VERSION:
        db.execute("begin immediate")
        try:
            # Again inside the transaction: another process may have migrated while we waited for the lock.
            for name in _MIGRATIONS[_version(db, path) :]:
                for statement in _statements(name):
                    db.execute(statement)
            db.execute(f"pragma application_id = {APPLICATION_ID}")
            db.execute(f"pragma user_version = {SCHEMA_VERSION}")
            db.execute("insert or ignore into meta values ('secret', ?)", (os.urandom(SECRET_BYTES),))
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise
    row = db.execute("select value from meta where key = 'secret'").fetchone()
    if row is None or len(row[0]) != SECRET_BYTES:
        raise ConfigError(f"store {path}: its secret is gone: restore it from a backup")
    return bytes(row[0])


def _version(db: sqlite3.Connection, path: str) -> int:
    """Return the schema's version. Asked inside a transaction: another process may be making the file right now."""
    version = int(db.execute("pragma user_version").fetchone()[0])
    owner = int(db.execute("pragma application_id").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"store {path}: written by a newer Interlock (schema {version}, this one knows {SCHEMA_VERSION}): "
            "upgrade interlock, or set `store` elsewhere"
        )
    if owner != APPLICATION_ID and (owner or version or db.execute("select 1 from sqlite_schema").fetchone()):
        raise ConfigError(f"store {path}: is a SQLite file of another program: set `store` elsewhere")
    return version


def _statements(name: str) -> list[str]:
    """Split a migration at the semicolons that end a line."""
    text = (_SQL / name).read_text(encoding="utf-8")
    return [part for part in text.split(";\n") if part.strip()]
