"""What a function accepts and what it may answer, compiled once for each tool.

Arguments are read strictly: first as Python values, then, if that fails, as the JSON they came from, where
dates and enums are text. Extra arguments are refused. An output is read as its type reads it (pydantic's
ordinary mode), so that JSON from a remote fits; what is not declared is dropped.
"""

from __future__ import annotations

import copy
import functools
import inspect
import types
import typing
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NotRequired, Required

from pydantic import BaseModel, ConfigDict, RootModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, SchemaError
from typing_extensions import TypedDict

from interlock.core.canonical import NotCanonical, canonical_json
from interlock.core.errors import ConfigError
from interlock.validation.jsonschemas import JsonSchema
from interlock.validation.mismatch import SchemaMismatch, from_pydantic, known_words

__all__ = ["Arguments", "JsonSchema", "Output", "SchemaMismatch", "compile_inputs", "compile_output"]

# What an annotation that cannot be used raises while it is compiled.
_UNUSABLE = (PydanticUserError, SchemaError, TypeError, NameError, AttributeError, SyntaxError)

# Applications that make their tools anew for each request make them of the same functions.
_COMPILED: weakref.WeakKeyDictionary[types.FunctionType, dict[tuple[bool, frozenset[str]], Arguments]] = (
    weakref.WeakKeyDictionary()
)


class Arguments:
    """The arguments of one function or model.

    Attributes:
        names: The arguments that there are.
        open: Whether others are accepted too (`**kwargs`).
    """

    __slots__ = ("_adapter", "_complete", "_defaults", "_reserved", "_strict", "_validate", "_words", "names", "open")

    def __init__(
        self,
        adapter: TypeAdapter[Any],
        names: Iterable[str],
        *,
        strict: bool,
        accepts_others: bool = False,
        defaults: Mapping[str, Any] | None = None,
        reserved: Iterable[str] = (),
    ) -> None:
        self.names = tuple(names)
        self.open = accepts_others
        self._adapter = adapter
        self._validate = adapter.validator.validate_python
        self._strict = strict
        self._defaults = tuple((defaults or {}).items())
        self._complete = len(self.names)
        self._reserved = frozenset(reserved) if accepts_others else frozenset()
        self._words = known_words(adapter.core_schema)

    def validate(self, value: Any) -> dict[str, Any]:
        """Return the validated keyword arguments, with those defaults filled in that JSON can hold.

        Raises:
            SchemaMismatch: What does not fit, without its content.
        """
        try:
            args = self._validate(value, strict=self._strict)
        except ValidationError as error:
            args = self._read_as_json(value, error)
        args = args if type(args) is dict else _fields_of(args)
        if self.open or len(args) < self._complete:
            for name, default in self._defaults:
                if name not in args:
                    # A list of the signature must not be shared by calls.
                    args[name] = copy.deepcopy(default) if isinstance(default, list | dict) else default
        if self._reserved and not self._reserved.isdisjoint(args):
            raise SchemaMismatch([{"loc": [], "type": "extra_forbidden", "msg": "A reserved argument was passed"}])
        return args

    def dump(self, value: Any) -> bytes:
        """Return the canonical JSON of validated arguments; decimals, sets and others as their types write them.

        Raises:
            NotCanonical: They cannot be written as JSON.
        """
        try:
            return canonical_json(value)
        except NotCanonical as error:
            # Only what the type reads back is what was meant: where nothing is declared, bytes are not text.
            data = _dump(self._adapter, value)
            if not self._reads_back(data, value):
                raise error from None
            return data

    def _reads_back(self, data: bytes, value: Any) -> bool:
        try:
            return bool(self._adapter.validator.validate_json(data) == value)
        except ValidationError:
            return False

    def _read_as_json(self, value: Any, error: ValidationError) -> Any:
        if self._strict:
            try:
                # Not orjson alone: it writes NaN as null, which might then fit.
                data = canonical_json(value)
                return self._adapter.validator.validate_json(data, strict=True)
            except ValidationError as as_json:
                error = as_json
            except NotCanonical:
                pass
        raise from_pydantic(error, self._words, self.names) from None


class Output:
    """The type of an output."""

    __slots__ = ("_adapter", "_validate", "_words")

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self._adapter = adapter
        self._validate = adapter.validator.validate_python
        self._words = known_words(adapter.core_schema)

    def validate(self, value: Any) -> Any:
        """Return `value` as its type reads it. An instance of a model is checked too: it may have been built unchecked.

        Raises:
            SchemaMismatch: What does not fit, without its content.
        """
        try:
            validated = self._validate(value)
            if validated is value and isinstance(value, BaseModel):
                self._adapter.validator.validate_json(self.dump(value), by_alias=True, by_name=True)
        except ValidationError as error:
            raise from_pydantic(error, self._words) from None
        except NotCanonical:
            raise SchemaMismatch([{"loc": [], "type": "not_json", "msg": "The output is not JSON"}]) from None
        return validated

    def dump(self, value: Any) -> bytes:
        """Return the canonical JSON of a validated output, such that `load` gives it back.

        Raises:
            NotCanonical: It cannot be written as JSON.
        """
        return _dump(self._adapter, value)

    def load(self, data: bytes) -> Any:
        """Return the output that `dump` wrote.

        Raises:
            SchemaMismatch: It does not fit the type as it is now.
        """
        try:
            return self._adapter.validator.validate_json(data, by_alias=True, by_name=True)
        except ValidationError as error:
            raise from_pydantic(error, self._words) from None


def compile_inputs(
    source: Callable[..., Any] | type[BaseModel] | Mapping[str, Any],
    *,
    strict: bool,
    ignore: Iterable[str] = ("idempotency_key",),
) -> Arguments | JsonSchema:
    """Compile the arguments of a function, a pydantic model or a JSON Schema.

    Args:
        source: Parameters without annotation take anything; `**kwargs` takes any further argument.
        strict: Text is no number, `1` is no boolean. False: as pydantic converts.
        ignore: Parameters that Interlock fills itself; passing them is refused.

    Raises:
        ConfigError: Which parameter or part cannot be used, and why.
    """
    if isinstance(source, Mapping):
        return JsonSchema(source, closed=strict)
    if isinstance(source, type) and issubclass(source, BaseModel):
        return _model_arguments(source, strict=strict)
    ignored = frozenset(ignore)
    if type(source) is not types.FunctionType:
        return _function_arguments(source, strict=strict, ignore=ignored)
    known = _COMPILED.setdefault(source, {})
    found = known.get((strict, ignored))
    if found is None:
        found = known[strict, ignored] = _function_arguments(source, strict=strict, ignore=ignored)
    return found


def compile_output(source: Any) -> Output | JsonSchema | None:
    """Compile the type of an output: any annotation, a pydantic model, or a JSON Schema; None is none.

    Raises:
        ConfigError: The type cannot be checked.
    """
    if source is None:
        return None
    if isinstance(source, Mapping):
        return JsonSchema(source, closed=False)
    return Output(_adapter(source, "output"))


def _model_arguments(model: type[BaseModel], *, strict: bool) -> Arguments:
    if issubclass(model, RootModel):
        raise ConfigError(f"{model.__name__}: arguments have names; a RootModel has none")
    accepts_others = model.model_config.get("extra") == "allow"
    closed = model
    if not accepts_others:
        # The same model, validators included, that refuses what it does not know.
        body = {"model_config": ConfigDict(extra="forbid"), "__module__": model.__module__, "__doc__": model.__doc__}
        closed = types.new_class(model.__name__, (model,), exec_body=lambda namespace: namespace.update(body))
    return Arguments(_adapter(closed, model.__name__), model.model_fields, strict=strict, accepts_others=accepts_others)


def _function_arguments(fn: Callable[..., Any], *, strict: bool, ignore: frozenset[str]) -> Arguments:
    title = getattr(fn, "__qualname__", type(fn).__qualname__)
    try:
        parameters = inspect.signature(fn).parameters
    except (ValueError, TypeError):
        raise ConfigError(f"{title}: its signature cannot be read: pass a pydantic model or a JSON Schema") from None
    hints = _hints(fn, title)
    fields: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    accepts_others = False
    for name, parameter in parameters.items():
        if name in ignore or parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            accepts_others = True
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigError(f"{title}: {name!r} is positional-only; tools are called with names: remove the `/`")
        hint, default = hints.get(name, Any), parameter.default
        if isinstance(default, FieldInfo):
            hint, default = Annotated[hint, default], default.get_default(call_default_factory=True)
            default = parameter.empty if default is PydanticUndefined else default
        fields[name] = Required[hint] if default is parameter.empty else NotRequired[hint]
        if default is not parameter.empty and _is_json(default):
            defaults[name] = default
    # A TypedDict, and not a model: its keys may have any name (`schema`, `_id`), and its values are a dict.
    make: Any = TypedDict
    shape = make(title, fields)
    shape.__pydantic_config__ = ConfigDict(
        extra="allow" if accepts_others else "forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )
    return Arguments(
        _adapter(shape, title),
        fields,
        strict=strict,
        accepts_others=accepts_others,
        defaults=defaults,
        reserved=ignore,
    )


def _hints(fn: Callable[..., Any], title: str) -> dict[str, Any]:
    """Resolve the annotations of the parameters alone: what a function returns may be known to type checkers only."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    if not inspect.isroutine(fn):
        fn = type(fn).__call__
    inner = inspect.unwrap(fn)
    written = {name: hint for name, hint in getattr(inner, "__annotations__", {}).items() if name != "return"}
    holder = type("Parameters", (), {"__annotations__": written})
    module = getattr(inner, "__globals__", {})
    try:
        try:
            return typing.get_type_hints(holder, globalns=module, include_extras=True)
        except NameError:
            return typing.get_type_hints(holder, globalns=module, localns=_locals_around(module), include_extras=True)
    except _UNUSABLE as error:
        raise ConfigError(
            f"{title}: an annotation cannot be resolved ({error}): define its type at module level, "
            f"outside `if TYPE_CHECKING`"
        ) from None


def _locals_around(module: dict[str, Any]) -> dict[str, Any]:
    """The names of the functions of `module` that are running: types may be defined beside the tool, in a test."""
    names: dict[str, Any] = {}
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals is module:
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names


def _adapter(source: Any, title: str) -> TypeAdapter[Any]:
    try:
        adapter = TypeAdapter(source)
        adapter.rebuild(raise_errors=True)
    except _UNUSABLE as error:
        first_line = str(error).partition("\n")[0]
        raise ConfigError(f"{title}: its type cannot be checked: {first_line}") from None
    return adapter


def _is_json(default: Any) -> bool:
    try:
        canonical_json(default)
    except NotCanonical:
        return False
    return True


def _fields_of(model: BaseModel) -> dict[str, Any]:
    return {**model.__dict__, **(model.__pydantic_extra__ or {})}


def _dump(adapter: TypeAdapter[Any], value: Any) -> bytes:
    try:
        plain = adapter.serializer.to_python(value, mode="json", round_trip=True, warnings=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise NotCanonical(f"{type(value).__name__} is not JSON ({type(error).__name__})") from None
    return canonical_json(plain)
