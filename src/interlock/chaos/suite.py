"""Suites as values: YAML to tasks, or an error that names the line and what to write instead.

The article's golden tasks load verbatim (`name`, `inject`, `input`, `expect`, below `golden_tasks`); everything else
may be added to a task.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from interlock.chaos.faults import MODEL_KINDS, WORKER_KINDS, Fault, Kind
from interlock.chaos.wire import PlacedFault, Server, WireKind, unfit
from interlock.config.complaints import explain
from interlock.config.quantities import CountOrZero, Globs, Name, Seconds, Usd, Word
from interlock.config.yaml_lines import Document, parse_yaml
from interlock.core.errors import ConfigError
from interlock.core.reasons import BUDGET_REASONS, StopReason

__all__ = ["EVERYTHING", "GOLDEN", "Expected", "Suite", "Task", "at_its_model", "faults_of", "load_suite", "shipped"]

GOLDEN = Path(__file__).with_name("golden_tasks.yaml")
"""The article's six tasks."""

EVERYTHING = Path(__file__).with_name("everything.yaml")
"""Tasks that reach every stop reason, every kind of fault and every guard."""

Meaning = Literal[
    "success", "graceful_degradation", "backoff_and_stop", "validation_error", "denied", "budget_stop", "any"
]
Text = Annotated[str, Field(min_length=1, max_length=4_000)]

_REASONS_OF: dict[str, frozenset[StopReason]] = {
    "success": frozenset({StopReason.SUCCESS}),
    "graceful_degradation": frozenset({StopReason.SUCCESS}),
    "backoff_and_stop": frozenset({StopReason.TOOL_RATE_LIMIT, StopReason.CIRCUIT_OPEN}),
    "validation_error": frozenset({StopReason.TOOL_OUTPUT_INVALID}),
    "budget_stop": BUDGET_REASONS,
}
_INJECT = re.compile(r"([a-z_]+?|[0-9]{3}_errors)(?:_([0-9]{1,3})%)?")
_ARTICLE_WORDS = {"schema_mismatch": Kind.SCHEMA_DRIFT, "partial_results_forever": Kind.PARTIAL_FOREVER}


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be true of every repetition; one of the article's words, and whatever else is said.

    Attributes:
        verdict: `success`, `graceful_degradation`, `backoff_and_stop`, `validation_error`, `denied`, `budget_stop`.
        reasons: Stop reasons of which the run must have one.
        effects: Tool to the number of distinct effects at the probe (without one: writes that reached the tool).
        duplicates: Effects that happened more than once.
        max_calls, max_usd: Calls and dollars of the run.
        recovery_s: Seconds from the first fault to the first answer after it.
        told_model, not_told_model: Texts that prompts must, or must not, contain.
        no_secret: Texts that neither record nor output may contain.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    verdict: Meaning = "any"
    reasons: frozenset[StopReason] = frozenset()
    effects: Mapping[Name, CountOrZero] = field(default_factory=dict)
    duplicates: CountOrZero = 0
    max_calls: CountOrZero | None = None
    max_usd: Usd | None = None
    recovery_s: Seconds | None = None
    told_model: tuple[Text, ...] = ()
    not_told_model: tuple[Text, ...] = ()
    no_secret: tuple[Text, ...] = ()

    @property
    def ends(self) -> frozenset[StopReason]:
        """Stop reasons with which a run can meet this; empty where any can."""
        possible = _REASONS_OF.get(self.verdict, self.reasons)
        return possible & self.reasons if self.reasons else possible

    def contradiction(self) -> str | None:
        """Return why no run can meet all of this, or None."""
        possible = _REASONS_OF.get(self.verdict)
        if possible is not None and self.reasons and not possible & self.reasons:
            return f"verdict {self.verdict} means one of {', '.join(sorted(possible))}: reasons cannot be another"
        if self.max_calls == 0 and any(self.effects.values()):
            return "effects need a call, and max_calls is 0"
        both = set(self.told_model) & set(self.not_told_model)
        return f"{min(both)!r} is in told_model and in not_told_model" if both else None


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a suite.

    Attributes:
        name: Of the task. input: what the agent is given.
        inject: A fault in one word, as the article writes it: `timeout_50%`, `429_errors`, `schema_mismatch`,
            `partial_results_forever`, or a kind of fault, with or without `_N%`.
        faults: Further faults. wire: those between the agent and the suite's servers.
        repetitions: How often, each with a seed of its own; else the suite's.
        agent: `module:function`, in place of the suite's. config: in place of the suite's.
        tools: Globs; narrows what this task's run may use. scopes: permissions that its run holds.
        person: What somebody says whenever an approval is asked for; left out, nobody is there.
        expect: One of the article's words, or what must be true.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]
    expect: Meaning | Expected
    input: Any = None
    inject: Word | None = None
    faults: tuple[Fault, ...] = ()
    wire: tuple[PlacedFault, ...] = ()
    repetitions: Annotated[int, Field(ge=1, le=10_000)] | None = None
    agent: Word | None = None
    config: Mapping[str, Any] | None = None
    tools: Globs | None = None
    scopes: tuple[Word, ...] = ()
    person: Literal["approves", "denies"] | None = None

    @property
    def expected(self) -> Expected:
        """What is expected, in full."""
        return self.expect if isinstance(self.expect, Expected) else Expected(self.expect)


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite of tasks.

    Attributes:
        tasks: In the order of the file. seed: of all chance. repetitions: of a task that names none.
        clock: `virtual` (waits cost no time; for agents whose model and tools are in this process) or `real`.
        agent, gate: `module:name` of what is tried; the command line's words come before them.
        profile, config: In place of the gate's own configuration; config is a mapping as in `interlock.yaml`.
        servers: Real servers that agents use, by name; a fault proxy is placed before each.
        probe: `module:function` that returns tool to number of effects at the remote, after each repetition.
        limit_s: Real seconds after which a task is given up.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]
    seed: int = 0
    repetitions: Annotated[int, Field(ge=1, le=10_000)] = 1
    clock: Literal["virtual", "real"] = "virtual"
    agent: Word | None = None
    gate: Word | None = None
    profile: Word | None = None
    config: Mapping[str, Any] | None = None
    servers: Mapping[Name, Server] = field(default_factory=dict)
    probe: Word | None = None
    limit_s: Seconds = 120.0

    def warnings(self) -> list[str]:
        """Return what is allowed, and probably not meant."""
        if not any(faults_of(task) or task.wire for task in self.tasks):
            return ["this suite injects nothing: it says what agents do, not what guards do"]
        return []


def faults_of(task: Task) -> tuple[Fault, ...]:
    """Return the faults of a task, that of its word `inject` first.

    Raises:
        ConfigError: The word names no fault.
    """
    if task.inject is None:
        return task.faults
    return (_of_word(task.inject), *task.faults)


def at_its_model(suite: Suite, task: Task) -> Task:
    """Return the task with its faults of the model before the suite's server that speaks `model`, if it has one.

    So they meet whoever asks that model, a framework's own client too; else they act in `run.model`.

    Raises:
        ConfigError: There are several such servers, or a key means nothing on a wire.
    """
    models = [name for name, server in suite.servers.items() if server.speaks == "model"]
    mine = [fault for fault in faults_of(task) if fault.kind in MODEL_KINDS]
    if not models or not mine:
        return task
    if len(models) > 1:
        raise ConfigError(f"{mine[0].kind}: say under wire before which server: {', '.join(models)}")
    placed = (
        PlacedFault(
            WireKind(fault.kind.value),
            calls=fault.calls,
            probability=fault.probability,
            from_s=fault.from_s,
            until_s=fault.until_s,
            delay_s=fault.delay_s,
            retry_after_s=fault.retry_after_s,
            server=models[0],
        )
        for fault in mine
    )
    others = tuple(fault for fault in faults_of(task) if fault.kind not in MODEL_KINDS)
    return replace(task, inject=None, faults=others, wire=(*task.wire, *placed))


def shipped(name: str | Path) -> Path:
    """Return the file of a suite: one that ships with the product, by its name (`golden`, `everything`), or a path."""
    return {"golden": GOLDEN, "everything": EVERYTHING}.get(str(name), Path(name))


def load_suite(source: str | Path | Mapping[str, Any]) -> Suite:
    """Return the suite of a YAML file, or of a mapping of the same shape.

    Raises:
        ConfigError: Names `file:line`, the key and what to write.
    """
    document, where = _read(source)
    data = dict(document.data)
    golden = data.pop("golden_tasks", None)
    if golden is not None and "tasks" in data:
        raise ConfigError(f"{where}: golden_tasks and tasks are the same key: keep one")
    root = "tasks" if golden is None else "golden_tasks"
    if golden is not None:
        data["tasks"] = golden
    try:
        suite = TypeAdapter(Suite).validate_json(json.dumps(data))
    except ValidationError as error:
        raise ConfigError(_complaints(error, data, document, where, root)) from None
    except ConfigError as error:  # of one fault of the wire
        raise ConfigError(f"{where}: wire: {error}") from None
    _check(suite, document, where, root)
    return replace(suite, tasks=tuple(at_its_model(suite, task) for task in suite.tasks))


def _read(source: str | Path | Mapping[str, Any]) -> tuple[Document, str]:
    if isinstance(source, Mapping):
        return Document(dict(source), {}), "suite"
    path = Path(source)
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path)), str(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


def _check(suite: Suite, document: Document, where: str, root: str) -> None:
    names: set[str] = set()
    for number, task in enumerate(suite.tasks):
        place = (root, str(number))
        if task.name in names:
            raise ConfigError(_at(where, document.line_of((*place, "name")), f"two tasks are called {task.name}"))
        names.add(task.name)
        try:
            faults_of(task)
        except ConfigError as error:
            raise ConfigError(_at(where, document.line_of((*place, "inject")), str(error))) from None
        key = "wire" if task.wire else "faults" if task.inject is None else "inject"
        misplaced = _misplaced(suite, task)
        if misplaced is not None:
            raise ConfigError(_at(where, document.line_of((*place, key)), f"task {task.name}: {key}: {misplaced}"))
        contradiction = task.expected.contradiction()
        if contradiction is not None:
            line = document.line_of((*place, "expect"))
            raise ConfigError(_at(where, line, f"task {task.name}: expect: {contradiction}"))


def _misplaced(suite: Suite, task: Task) -> str | None:
    """Return why a fault of the wire cannot stand where it is said to stand, or None."""
    names = list(suite.servers)
    try:
        task = at_its_model(suite, task)
    except ConfigError as error:
        return str(error)
    for fault in task.wire:
        if not names:
            return "this suite names no servers"
        if fault.server is None and len(names) > 1:
            return f"{fault.kind}: say server: one of {', '.join(names)}"
        if fault.server is not None and fault.server not in suite.servers:
            return f"no server is called {fault.server}{_nearest(fault.server, names)}"
        why = unfit(fault, suite.servers[fault.server or names[0]].speaks)
        if why is not None:
            return why
        if suite.clock != "real":
            return "what passes on a wire takes its time: say clock: real"
        if any(each.kind in WORKER_KINDS for each in task.faults):
            return "worker processes connect by themselves: have them in a task without wire"
    return None


def _of_word(word: str) -> Fault:
    match = _INJECT.fullmatch(word)
    name, percent = (match[1], match[2]) if match else (word, None)
    probability = 1.0 if percent is None else int(percent) / 100
    if not 0.0 < probability <= 1.0:
        raise ConfigError(f"inject: {word}: the share must be 1% to 100%")
    if name.endswith("_errors") and name[:3].isdigit():
        status = int(name[:3])
        if not 400 <= status <= 599:
            raise ConfigError(f"inject: {word}: {status} is no error status (400 to 599)")
        return Fault(Kind.HTTP, status=status, probability=probability)
    kind = _ARTICLE_WORDS.get(name)
    if kind is None and name in Kind.__members__.values():
        kind = Kind(name)
    if kind is None:
        raise ConfigError(f"inject: no fault is called {word}{_nearest(name, [*_ARTICLE_WORDS, '429_errors', *Kind])}")
    return replace(Fault(kind), probability=probability)


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, [str(each) for each in known], n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(str(each) for each in known)}"


_SECTIONS: dict[str, Any] = {
    "tasks": Task,
    "faults": Fault,
    "expect": Expected,
    "wire": PlacedFault,
    "servers": Server,
}


def _complaints(error: ValidationError, data: Mapping[str, Any], document: Document, where: str, root: str) -> str:
    lines: dict[tuple[int, str], None] = {}
    faults = error.errors(include_url=False)
    for fault in faults:
        if any(
            len(other["loc"]) > len(fault["loc"]) and other["loc"][: len(fault["loc"])] == fault["loc"]
            for other in faults
        ):
            continue  # a list whose items are wrong is not also too short
        path = tuple(
            str(p) for p in fault["loc"] if not str(p).startswith(("literal[", "function-")) and p != "Expected"
        )
        if "literal[" in str(fault["loc"]) and isinstance(_value_at(data, path), Mapping):
            continue  # it is not the word that was meant
        if fault["type"] in {"dataclass_type", "dataclass_exact_type"} and path[-1:] == ("expect",):
            continue  # nor the mapping
        shown = tuple(root if i == 0 and p == "tasks" else p for i, p in enumerate(path))
        line = document.line_of(shown)
        section = next((_SECTIONS[p] for p in reversed(path[:-1]) if p in _SECTIONS), Suite)
        if fault["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            text = "unknown key" + _nearest(path[-1], [each.name for each in fields(section)])
        else:
            text = explain(path, fault["type"], fault.get("ctx", {}), _value_at(data, path))
        lines[line or 0, _at(where, line, f"{'.'.join(shown)}: {text}")] = None
    return "\n".join(text for _, text in sorted(lines)) or f"{where}: {error.error_count()} values cannot be used"


def _value_at(data: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        try:
            data = data[int(key)] if isinstance(data, list | tuple) else data[key]
        except (KeyError, IndexError, TypeError, ValueError):
            return key
    return data


def _at(where: str, line: int | None, text: str) -> str:
    return f"{where}:{line}: {text}" if line else f"{where}: {text}"
