"""Registered tools: a decorated function, and what is known of it.

Inside a run, calling a decorated tool *is* `run.call`: an agent's existing code stays as it is.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from interlock.core.calls import Approval, Effect, OnUnknown, Repeat, ToolSpec
from interlock.core.errors import ConfigError, NoRun
from interlock.policy.globs import valid_tool_name
from interlock.validation.schemas import compile_inputs, compile_output

__all__ = ["KEY", "Attempt", "Caller", "Registry", "Tool", "attempt_under_way", "current_run"]

KEY = "idempotency_key"
_NO_DOTS = re.compile(r"[^A-Za-z0-9_-]")


class Caller(Protocol):
    """A run, as far as a tool needs it."""

    def call(self, tool: str, args: Mapping[str, Any] | None = None) -> Any:
        """See `Run.call`."""
        ...


current_run: ContextVar[Caller | None] = ContextVar("interlock_run", default=None)


class Attempt:
    """One attempt that a framework makes of a guarded call, seen from inside its tool.

    Attributes:
        sent_key: The idempotency key that the remote should get; None of a read.
        taken: Whether the tool's own function has been entered: further calls of it are calls of their own.

    Args:
        fn: The function of the tool that was called.
        loop: Where an async function that the framework calls from a thread is awaited.
    """

    __slots__ = ("_fn", "_loop", "sent_key", "taken")

    def __init__(self, fn: Callable[..., Any], sent_key: str | None, loop: asyncio.AbstractEventLoop) -> None:
        self._fn = fn
        self._loop = loop
        self.sent_key = sent_key
        self.taken = False

    def takes(self, fn: Callable[..., Any]) -> bool:
        """Whether a call of `fn` at this place is this attempt; it is so once."""
        if self.taken or fn is not self._fn:
            return False
        self.taken = True
        return True

    def awaited(self, result: Any) -> Any:
        """Return `result`; in a thread without a loop, what it comes to where it is a coroutine."""
        if not inspect.iscoroutine(result):
            return result
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(result, self._loop).result()
        return result


attempt_under_way: ContextVar[Attempt | None] = ContextVar("interlock_attempt", default=None)


class Tool:
    """A guarded tool. Call it inside a run; in an async agent the call is awaited, in a sync one it is not.

    A framework that is handed one sees the function without `idempotency_key`.

    Attributes:
        name: As policy and model write it.
        spec: What is known of it.
        unguarded: The function itself, for tests.
    """

    def __init__(self, spec: ToolSpec) -> None:
        functools.update_wrapper(self, spec.fn)
        self.name = spec.name
        self.spec = spec
        self.unguarded = spec.fn
        self._signature = self.__signature__ = _without_key(inspect.signature(spec.fn))
        self.__annotations__ = {name: hint for name, hint in spec.fn.__annotations__.items() if name != KEY}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what `run.call` does with these arguments, in the run this code belongs to."""
        attempt = attempt_under_way.get()
        if attempt is not None and attempt.takes(self.unguarded):
            # An adapter is making this very call: it has passed the funnel.
            key = {KEY: attempt.sent_key} if self.spec.takes_key else {}
            return attempt.awaited(self.unguarded(*args, **kwargs, **key))
        run = current_run.get()
        if run is None:
            raise NoRun(
                f"{self.name} was called outside a run: use gate.run or gate.open_run"
                f" (in a test: {self.name}.unguarded)"
            )
        return run.call(self.name, dict(self._bind(args, kwargs)))

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        if not args:
            return kwargs
        bound = self._signature.bind(*args, **kwargs).arguments
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                bound.update(bound.pop(name, {}))
        return bound

    def __repr__(self) -> str:
        return f"<Tool {self.name}>"


def _without_key(signature: inspect.Signature) -> inspect.Signature:
    """Return the signature without `idempotency_key`, which Interlock fills."""
    kept = [p for p in signature.parameters.values() if p.name != KEY]
    return signature.replace(parameters=kept)


class Registry:
    """The tools of one gate, by name.

    Args:
        strict: `validation.input.strict`: no coercion of arguments.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._specs: dict[str, ToolSpec] = {}
        self._aliases: dict[str, ToolSpec | None] = {}
        self._aliased = 0

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def __iter__(self) -> Iterator[ToolSpec]:
        return iter(self._specs.values())

    def get(self, name: str) -> ToolSpec | None:
        """Return what is known of this tool, or None."""
        return self._specs.get(name)

    def meant(self, name: str) -> ToolSpec | None:
        """Return the tool of this name; or the one whose function or name a framework would call so, where it is one.

        Frameworks name a tool after its function, and most models take no dots: `ticket.create` is theirs as
        `create_ticket` or `ticket_create`.
        """
        spec = self._specs.get(name)
        if spec is not None:
            return spec
        if self._aliased != len(self._specs):
            self._aliased = len(self._specs)
            self._aliases = {}
            for known in self._specs.values():
                for alias in {getattr(known.fn, "__name__", ""), _NO_DOTS.sub("_", known.name)}:
                    # A name that two could have is nobody's.
                    self._aliases[alias] = None if alias in self._aliases else known
        return self._aliases.get(name)

    def add(self, spec: ToolSpec) -> ToolSpec:
        """Register a tool.

        Raises:
            ConfigError: The name is taken, or has characters outside `A-Z a-z 0-9 _ . : / -`.
        """
        if not valid_tool_name(spec.name):
            raise ConfigError(f"tool name {spec.name[:80]!r}: 1 to 128 of A-Z a-z 0-9 _ . : / -")
        if spec.name in self._specs:
            raise ConfigError(f"tool {spec.name} is registered twice: give one of them another name")
        self._specs[spec.name] = spec
        return spec

    def declare(
        self,
        fn: Callable[..., Any],
        name: str,
        *,
        effect: str | Effect | Callable[[Mapping[str, Any]], Any] | None,
        on_unknown: str | OnUnknown | None,
        lookup: Callable[..., Any] | None,
        natural: bool,
        identity: Sequence[str],
        repeat: str | Repeat,
        approval: str | bool | Approval | None,
        input: Any,  # noqa: A002 - the public word
        output: Any,
        timeout_s: float | None,
        invariants: Sequence[Any],
        scopes: Sequence[str],
        compensate: str | None,
        outcome: Any,
        settle_s: float | None,
        allow: bool,
        check: Callable[[ToolSpec], None],
    ) -> ToolSpec:
        """Read the words of `@gate.tool` and register the tool. See `Interlock.tool`."""
        if effect is None:
            raise ConfigError(f'tool {name}: say effect="read" or effect="write"; there is no safe default')
        if timeout_s is not None and not 0 < timeout_s <= 86_400:
            raise ConfigError(f"tool {name}: timeout_s must be between 0 and 86,400 seconds")
        takes_key = KEY in inspect.signature(fn).parameters
        inputs = compile_inputs(input if input is not None else fn, strict=self._strict)
        if lookup is not None and not inputs.open:
            _check_lookup(name, lookup, inputs.names)
        spec = ToolSpec(
            name=name,
            fn=fn,
            is_async=inspect.iscoroutinefunction(inspect.unwrap(fn)) or _async_callable(fn),
            effect=effect if callable(effect) else _word(Effect, effect, name, "effect"),
            on_unknown=_on_unknown(name, on_unknown, takes_key=takes_key, natural=natural, lookup=lookup),
            natural=natural,
            lookup=lookup,
            settle_s=settle_s,
            identity=_identity(name, fn, identity),
            repeat=_word(Repeat, repeat, name, "repeat"),
            approval="required" if approval is True else approval or None,
            timeout_s=timeout_s,
            scopes=frozenset(scopes),
            outcome=outcome,
            takes_key=takes_key,
            inputs=inputs,
            output=compile_output(output) if output is not None else None,
            invariants=_invariants(name, invariants),
            compensate=compensate,
            allow=allow,
            description=inspect.getdoc(fn) or "",
        )
        check(spec)
        return self.add(spec)


def _async_callable(fn: Any) -> bool:
    return inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004 - objects with async __call__


def _word(enum: Any, value: Any, tool: str, key: str) -> Any:
    try:
        return enum(value)
    except ValueError:
        known = ", ".join(repr(member.value) for member in enum)
        raise ConfigError(f"tool {tool}: {key}={value!r} is not one of {known}") from None


def _on_unknown(
    name: str, value: str | OnUnknown | None, *, takes_key: bool, natural: bool, lookup: Callable[..., Any] | None
) -> OnUnknown:
    if value is None:
        if natural or takes_key:
            return OnUnknown.RESEND
        return OnUnknown.LOOKUP if lookup is not None else OnUnknown.STOP
    word: OnUnknown = _word(OnUnknown, value, name, "on_unknown")
    if word is OnUnknown.LOOKUP and lookup is None:
        raise ConfigError(f"tool {name}: on_unknown='lookup' needs lookup=, a function that asks the remote")
    if word is OnUnknown.RESEND and not (takes_key or natural):
        raise ConfigError(
            f"tool {name}: on_unknown='resend' needs a parameter idempotency_key, on which the remote dedupes,"
            " or natural=True"
        )
    return word


def _check_lookup(tool: str, lookup: Callable[..., Any], names: Collection[str]) -> None:
    """Refuse a look-up that asks for what no call of the tool has."""
    try:
        parameters = inspect.signature(lookup).parameters.values()
    except (TypeError, ValueError):
        return  # a built-in that does not say: it gets all there is
    for parameter in parameters:
        named = parameter.kind in {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
        if named and parameter.default is parameter.empty and parameter.name not in {*names, KEY}:
            raise ConfigError(
                f"tool {tool}: lookup takes {parameter.name!r}, which is not an argument of the tool;"
                f" it gets those that it names, and {KEY}"
            )


def _identity(name: str, fn: Callable[..., Any], identity: Sequence[str]) -> tuple[str, ...]:
    parameters = inspect.signature(fn).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    if isinstance(identity, str):
        raise ConfigError(f"tool {name}: identity is a sequence of argument names, e.g. ({identity!r},)")
    for field in identity:
        if field not in parameters and not open_ended:
            raise ConfigError(f"tool {name}: identity names {field!r}, which is not an argument of the function")
    return tuple(identity)


def _invariants(name: str, invariants: Sequence[Any]) -> tuple[tuple[str, Callable[[Any], bool]], ...]:
    named = []
    for i, rule in enumerate(invariants):
        label, predicate = rule if isinstance(rule, tuple) else (getattr(rule, "__name__", f"invariant {i + 1}"), rule)
        if not callable(predicate):
            raise ConfigError(f"tool {name}: invariant {label!r} is not callable")
        named.append((str(label), predicate))
    return tuple(named)
