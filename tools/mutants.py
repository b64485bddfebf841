"""Mutants of one module: each is its tree with one small thing wrong; texts, annotations and messages are spared."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_REACHED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One mutant of a file: the `choice`-th change of its `node`-th node, in the order of `ast.walk`."""

    path: Path
    node: int
    choice: int
    line: int
    end_line: int
    what: str

    @property
    def lines(self) -> range:
        """The lines of what is changed; of a compound statement, those of its head."""
        return range(self.line, self.end_line + 1)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"

    def tree(self, root: Path) -> ast.Module:
        """Return the tree with the change."""
        tree = ast.parse((root / self.path).read_text(encoding="utf-8"))
        node = list(ast.walk(tree))[self.node]
        new = ast.copy_location(list(_changes(node))[self.choice][1], node)
        return ast.fix_missing_locations(_Swapped(node, new).visit(tree))


class _Swapped(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else self.generic_visit(node)


def mutants_of(root: Path, path: Path) -> list[Mutant]:
    """Return every mutant of `root / path`, in a fixed order."""
    tree = ast.parse((root / path).read_text(encoding="utf-8"))
    spared = _spared(tree)
    found = []
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in spared:
            continue
        for choice, (what, _) in enumerate(_changes(node)):
            found.append(Mutant(path, number, choice, node.lineno, _end(node), what))
    return found


def _end(node: ast.AST) -> int:
    head = node.test if isinstance(node, ast.If) else node
    return head.end_lineno or head.lineno


def _spared(tree: ast.Module) -> set[int]:
    """Return what is not mutated: annotations, decorators, asserts, texts of errors, and what only names names."""
    found: set[int] = set()

    def spare(*nodes: ast.AST | None) -> None:
        for node in nodes:
            if node is not None:
                found.update(id(each) for each in ast.walk(node))

    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(annotation=annotation):
                spare(annotation)
            case ast.arg(annotation=annotation):
                spare(annotation)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                spare(node.returns, *node.decorator_list)
                if node.name in {"__repr__", "__str__"}:
                    spare(*node.body)
            case ast.ClassDef():
                spare(*node.decorator_list)
            case ast.Assert() | ast.JoinedStr():
                spare(node)
            case ast.Raise(exc=exc):
                spare(exc)
            case ast.Assign(targets=[ast.Name(id=name)]) if name[0].isupper() or name == "__all__":
                if not isinstance(node.value, ast.Constant):
                    spare(node)  # tables and type aliases
    return found


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                new = copy.deepcopy(node)
                new.ops[place] = _COMPARED[type(op)]()
                yield f"{type(op).__name__} becomes {_COMPARED[type(op)].__name__}", new
        case ast.BoolOp(op=op):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield f"{type(op).__name__} becomes {type(other).__name__}", ast.BoolOp(other, node.values)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield f"{type(node.op).__name__} is gone", operand
        case ast.BinOp(op=op) if type(op) in _REACHED:
            other = _REACHED[type(op)]()
            yield f"{type(op).__name__} becomes {type(other).__name__}", ast.BinOp(node.left, other, node.right)
        case ast.AugAssign(op=op) if type(op) in _REACHED:
            other = _REACHED[type(op)]()
            yield f"{type(op).__name__}= becomes {type(other).__name__}=", ast.AugAssign(node.target, other, node.value)
        case ast.Constant(value=bool() as value):
            yield f"{value} becomes {not value}", ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield f"{value} becomes {value + 1}", ast.Constant(value + 1)
        case ast.Return(value=value) if value is not None and not (
            isinstance(value, ast.Constant) and value.value is None
        ):
            yield "returns None", ast.Return(ast.Constant(None))
        case ast.If(test=test):
            yield "the condition is turned round", ast.If(_turned(test), node.body, node.orelse)
        case ast.IfExp(test=test):
            yield "the condition is turned round", ast.IfExp(_turned(test), node.body, node.orelse)
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield "is not done", ast.Pass()
        case ast.Raise():
            yield "is not raised", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "is not assigned", ast.Pass()
        case ast.Break() | ast.Continue():
            yield f"{type(node).__name__.lower()} is gone", ast.Pass()
        case ast.Call(func=ast.Name(id=name)) if name in _CALLED:
            yield (
                f"{name} becomes {_CALLED[name]}",
                ast.Call(ast.Name(_CALLED[name], ast.Load()), node.args, node.keywords),
            )


def _turned(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)
