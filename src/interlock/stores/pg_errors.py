"""What an error of PostgreSQL or of its driver means for us, and what it says to whoever must act on it."""

from __future__ import annotations

from enum import Enum

from interlock.core.errors import ConfigError, InterlockError, StoreUnavailable
from interlock.stores.pg_address import EXAMPLE

__all__ = ["Fault", "fault_of", "translate"]


class Fault(Enum):
    """Who is at fault: CONNECTION (make another), STORE (wait), AGAIN (repeat at once), WORK (this one statement)."""

    CONNECTION = "connection"
    STORE = "store"
    AGAIN = "again"
    WORK = "work"


# Codes of SQLSTATE, or the two digits of a class of them.
_CONNECTION = frozenset({"08", "57P01", "57P02", "57P03", "57P05", "25P03", "53300"})
_AGAIN = frozenset({"40001", "40P01"})
_WORK = frozenset({"22", "23", "54", "42", "21"})
# Of class 42, but no statement would do better: a table, a schema, a function or a permission is missing.
_NOT_WORK = frozenset({"42P01", "42501", "42883", "42703"})

_ADVICE = {
    "28": "the server refuses this user: check the user and the password in the URL, and pg_hba.conf",
    "3D000": "there is no such database: create it, or name another in the URL",
    "3F000": "its schema is gone: restore it from a backup, or name another with ?schema=",
    "25006": "this server only reads (a standby?): name the primary in the URL",
    "42P01": "a table of the store is missing: restore it from a backup, or name another with ?schema=",
    "42501": "the role lacks a right: see `admit` in docs, or use the role that made the store",
    "53100": "the disk of the server is full: free some space",
    "53200": "the server is out of memory",
    "53300": "too many connections: raise max_connections, or put a pooler in front (?pooler=transaction)",
    "57014": "the server cancelled a statement: raise statement_timeout of this role",
    "57P03": "the server is starting up, or shutting down",
    "42704": "the server does not know a parameter of the URL",
}
_WRONG_ADDRESS = ("28", "3D000", "42704", "22023")


def fault_of(error: BaseException) -> Fault:
    """Return who is at fault."""
    code = _code(error)
    if code is not None:
        if code in _AGAIN:
            return Fault.AGAIN
        if code in _CONNECTION or code[:2] in _CONNECTION:
            return Fault.CONNECTION
        # A row of another tenant has the code of a missing right, but says something of that row alone.
        if getattr(error, "server_source_function", None) == "ExecWithCheckOptions":
            return Fault.WORK
        return Fault.WORK if code[:2] in _WORK and code not in _NOT_WORK else Fault.STORE
    # The driver refuses to send a value before anything has left; its other errors are of the connection.
    is_driver = isinstance(error, OSError | EOFError) or type(error).__module__.startswith("asyncpg")
    return Fault.CONNECTION if is_driver and not isinstance(error, ValueError | TypeError) else Fault.WORK


def translate(error: BaseException, shown: str, *, opening: bool = False) -> InterlockError:
    """Return the error of our tree that says what to do; an address that will never do is a `ConfigError`."""
    code = _code(error) or ""
    advice = _ADVICE.get(code) or _ADVICE.get(code[:2])
    if advice is None:
        advice = "check that the server runs and can be reached from here"
        if code and fault_of(error) is not Fault.CONNECTION:
            advice = "run `interlock doctor`"
    if opening and isinstance(error, ValueError):
        return ConfigError(f"store {shown}: {_first_line(error)}: {EXAMPLE}")
    text = f"store {shown}: {_first_line(error)}: {advice}"
    return ConfigError(text) if opening and code.startswith(_WRONG_ADDRESS) else StoreUnavailable(text)


def _code(error: BaseException) -> str | None:
    code = getattr(error, "sqlstate", None)
    return code if isinstance(code, str) else None


def _first_line(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = str(error).strip().partition("\n")[0]
    return f"{text} [{code}]" if (code := _code(error)) else text or type(error).__name__
