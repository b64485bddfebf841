"""A queue consumer or web handler as a run: one message, one run, whatever the queue delivers twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from interlock.core.errors import ConfigError
from interlock.core.results import RunResult

__all__ = ["Field", "Handler", "field_of"]

Field = str | Callable[[Any], Any]
"""Where a message has something: the name of its key or attribute, or a function of it."""


class Handler:
    """What `gate.handler` makes of an agent: `await handler(message)`, or `handler.sync(message)`.

    Attributes:
        agent: The function itself; a worker that is given the handler runs this.
    """

    def __init__(
        self,
        run: Callable[..., Awaitable[RunResult]],
        run_sync: Callable[..., RunResult],
        agent: Callable[..., Any],
        request_id: Field,
        tenant_id: Field | None,
        wait_s: float | None,
        options: Mapping[str, Any],
    ) -> None:
        self.agent = agent
        self.__name__ = str(getattr(agent, "__name__", type(agent).__name__))
        self.__doc__ = agent.__doc__
        self._run = run
        self._run_sync = run_sync
        self._request_id = request_id
        self._tenant_id = tenant_id
        self._options = {"agent_name": self.__name__, **options, "wait_s": wait_s}

    async def __call__(self, message: Any, *, retry: bool | Literal["resume"] = False) -> RunResult:
        """Handle one message; a duplicate gets the outcome.

        Raises:
            AlreadyRunning: It is being handled elsewhere, after `wait_s`; `run_id` says as what.
            ConfigError: The message has no such field.
        """
        return await self._run(self.agent, message, **self._words(message), retry=retry)

    def sync(self, message: Any, *, retry: bool | Literal["resume"] = False) -> RunResult:
        """Do what calling it does, from sync code."""
        return self._run_sync(self.agent, message, **self._words(message), retry=retry)

    def _words(self, message: Any) -> dict[str, Any]:
        words = {**self._options, "request_id": str(field_of(message, self._request_id, "request_id"))}
        if self._tenant_id is not None:
            words["tenant_id"] = str(field_of(message, self._tenant_id, "tenant_id"))
        return words


def field_of(message: Any, field: Field, what: str) -> Any:
    """Return what a message says of itself.

    Raises:
        ConfigError: It does not, or says nothing.
    """
    if not isinstance(field, str):
        value = field(message)
    elif isinstance(message, Mapping):
        value = message.get(field)
    else:
        value = getattr(message, field, None)
    if value is None or value == "":
        raise ConfigError(
            f"gate.handler: the message has no {what} at {field!r}: without one nothing is done only once"
        )
    return value
