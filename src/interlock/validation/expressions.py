"""Invariants written in the configuration: one condition on `output`, in a small and harmless language.

    output.total >= 0 and output.currency in ["EUR", "USD"]
    all(item.quantity > 0 for item in output.items) and len(output.items) <= 100

It is Python's syntax with a short list of what may stand in it: no calls but the functions below, no names
but `output` and loop variables, arithmetic on numbers only. Attributes and items read a mapping's keys or
an object's public fields; what is missing makes the invariant fail.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from interlock.core.errors import ConfigError

__all__ = ["compile_expression"]

MAX_LENGTH = 1000
MAX_DEPTH = 40

_Scope = dict[str, Any]
_Term = Callable[[_Scope], Any]

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, items: item in items,
    ast.NotIn: lambda item, items: item not in items,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "all": all,
    "any": any,
    "endswith": str.endswith,
    "len": len,
    "lower": str.lower,
    "max": max,
    "min": min,
    "startswith": str.startswith,
    "sum": sum,
}


def compile_expression(text: str, *, key: str = "invariants") -> Callable[[Any], bool]:
    """Compile a condition on `output`; the result may raise, which counts as not holding.

    Args:
        key: Configuration key it comes from, named in errors.

    Raises:
        ConfigError: Where (line and column) and what may not stand there.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"{key}: an expression has at most {MAX_LENGTH} characters, this one {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = f"line {error.lineno}, column {error.offset}: " if isinstance(error, SyntaxError) else ""
        raise ConfigError(f"{key}: {at}not an expression: {text[:80]!r}") from None
    condition = _Compiler(key).term(tree.body, frozenset({"output"}), 0)

    def invariant(output: Any) -> bool:
        held = condition({"output": output})
        if not isinstance(held, bool):
            raise TypeError(f"{key}: the expression answers {type(held).__name__}, not true or false")
        return held

    return invariant


class _Compiler:
    """Turns each node into a function of the names in scope; whatever is not listed here is an error."""

    def __init__(self, key: str) -> None:
        self._key = key

    def term(self, node: ast.expr, names: frozenset[str], depth: int) -> _Term:
        if depth > MAX_DEPTH:
            raise self._error(node, "is nested too deeply")
        compile_node = getattr(self, f"_{type(node).__name__.lower()}", None)
        if compile_node is None:
            raise self._error(node, "may not stand in an invariant")
        term: _Term = compile_node(node, names, depth + 1)
        return term

    def _error(self, node: ast.expr, why: str) -> ConfigError:
        what = ast.unparse(node)[:60]
        return ConfigError(f"{self._key}: line {node.lineno}, column {node.col_offset + 1}: `{what}` {why}")

    def _constant(self, node: ast.Constant, _names: frozenset[str], _depth: int) -> _Term:
        value = node.value
        if not isinstance(value, str | int | float | None):
            raise self._error(node, "is not text, a number, true, false or none")
        return lambda _scope: value

    def _name(self, node: ast.Name, names: frozenset[str], _depth: int) -> _Term:
        if node.id not in names:
            raise self._error(node, "is not known here: there is `output` (text needs quotes)")
        return operator.itemgetter(node.id)

    def _attribute(self, node: ast.Attribute, names: frozenset[str], depth: int) -> _Term:
        if node.attr.startswith("_"):
            raise self._error(node, "is not a field of an output")
        of, name = self.term(node.value, names, depth), node.attr
        return lambda scope: _field(of(scope), name)

    def _subscript(self, node: ast.Subscript, names: frozenset[str], depth: int) -> _Term:
        of, index = self.term(node.value, names, depth), self.term(node.slice, names, depth)
        return lambda scope: _item(of(scope), index(scope))

    def _boolop(self, node: ast.BoolOp, names: frozenset[str], depth: int) -> _Term:
        terms = [self.term(value, names, depth) for value in node.values]
        if isinstance(node.op, ast.And):
            return lambda scope: all(term(scope) for term in terms)
        return lambda scope: any(term(scope) for term in terms)

    def _unaryop(self, node: ast.UnaryOp, names: frozenset[str], depth: int) -> _Term:
        term = self.term(node.operand, names, depth)
        if isinstance(node.op, ast.Not):
            return lambda scope: not term(scope)
        if isinstance(node.op, ast.USub):
            return lambda scope: -term(scope)
        raise self._error(node, "may not stand in an invariant")

    def _binop(self, node: ast.BinOp, names: frozenset[str], depth: int) -> _Term:
        apply = _ARITHMETIC.get(type(node.op))
        if apply is None:
            raise self._error(node, "is not one of + - * / // %")
        left, right = self.term(node.left, names, depth), self.term(node.right, names, depth)
        # Numbers only: `"a" * 10**9` and `"%s" % x` are not arithmetic.
        return lambda scope: apply(_number(left(scope)), _number(right(scope)))

    def _compare(self, node: ast.Compare, names: frozenset[str], depth: int) -> _Term:
        first = self.term(node.left, names, depth)
        rest = [
            (_COMPARE[type(op)], self.term(term, names, depth))
            for op, term in zip(node.ops, node.comparators, strict=True)
        ]

        def compare(scope: _Scope) -> bool:
            left = first(scope)
            for holds, term in rest:
                right = term(scope)
                if not holds(left, right):
                    return False
                left = right
            return True

        return compare

    def _list(self, node: ast.List | ast.Tuple | ast.Set, names: frozenset[str], depth: int) -> _Term:
        terms = [self.term(item, names, depth) for item in node.elts]
        return lambda scope: [term(scope) for term in terms]

    _tuple = _list
    _set = _list

    def _call(self, node: ast.Call, names: frozenset[str], depth: int) -> _Term:
        function = _FUNCTIONS.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if function is None or node.keywords:
            raise self._error(node, f"is not a call of one of {', '.join(sorted(_FUNCTIONS))}")
        terms = [self.term(item, names, depth) for item in node.args]
        return lambda scope: function(*[term(scope) for term in terms])

    def _generatorexp(self, node: ast.GeneratorExp, names: frozenset[str], depth: int) -> _Term:
        loop = node.generators[0]
        if len(node.generators) > 1 or loop.is_async or not isinstance(loop.target, ast.Name):
            raise self._error(node, "may have one `for` with one name")
        items, name = self.term(loop.iter, names, depth), loop.target.id
        inner = names | {name}
        wanted = [self.term(test, inner, depth) for test in loop.ifs]
        element = self.term(node.elt, inner, depth)

        def generate(scope: _Scope) -> Any:
            scopes = ({**scope, name: item} for item in items(scope))
            return (element(s) for s in scopes if all(test(s) for test in wanted))

        return generate


def _field(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value[name]
    field = getattr(value, name)
    if callable(field):
        raise TypeError(f"{name} is not a field")
    return field


def _item(value: Any, index: Any) -> Any:
    if isinstance(value, Mapping | Sequence):
        return value[index]
    raise TypeError("only mappings and lists have items")


def _number(value: Any) -> Any:
    if isinstance(value, str | bytes | list | tuple | dict | set):
        raise TypeError("arithmetic is for numbers")
    return value
