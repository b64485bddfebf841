"""moatless-tools trajectories: a tree of `nodes`, each with an `action`, an `observation` and `completions`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from interlock.forensics.error_text import error_kind
from interlock.forensics.formats.openai_chat import unwrap
from interlock.forensics.json_records import each_run
from interlock.forensics.traces import (
    Broken,
    BrokenRecord,
    RecordedCall,
    RecordedRun,
    RecordedTurn,
    args_hash,
    text_hash,
)

__all__ = ["detects", "read"]

# Of an action: what is the model's note to itself, and what names its class.
_NOT_ARGUMENTS = frozenset({"scratch_pad", "action_args_class", "action_class"})


def detects(record: Any) -> bool:
    """Whether this record has nodes with actions."""
    _, body = unwrap(record) if isinstance(record, dict) else ({}, None)
    nodes = body.get("nodes") if isinstance(body, dict) else None
    return isinstance(nodes, list) and any(isinstance(node, dict) and "node_id" in node for node in nodes[:3])


def read(lines: Iterable[bytes], dataset: str = "") -> Iterator[RecordedRun | Broken]:
    """Yield the runs, and what is broken, of a file in this format."""
    return each_run(lines, lambda record: _run(record, dataset))


def _run(record: Any, dataset: str) -> RecordedRun:
    source, body = unwrap(record)
    if not isinstance(body, dict) or not isinstance(body.get("nodes"), list):
        raise BrokenRecord("no list of `nodes`")
    metadata = body.get("metadata") or {}
    task = str(metadata.get("instance_id") or body.get("instance_id") or "")
    turns, cost = [], 0.0
    for node in body["nodes"]:
        spent = sum(_cost(each) for each in (node.get("completions") or {}).values())
        cost += spent
        if node.get("action"):
            turns.append(RecordedTurn((_call(node["action"], node.get("observation")),), spent or None))
    said = tuple(str(node["message"]) for node in body["nodes"] if node.get("message"))
    resolved = body.get("resolved", metadata.get("resolved"))
    completion = ((body.get("agent") or {}).get("completion")) or {}
    return RecordedRun(
        dataset=dataset,
        run_id=str(source.get("path") or task),
        model=str(completion.get("model") or ""),
        domain="",
        task=task,
        success=resolved if isinstance(resolved, bool) else None,
        turns=tuple(turns),
        cost_usd=cost or None,
        said=said,
        error=str(body.get("error") or ""),
    )


def _cost(completion: Any) -> float:
    usage = completion.get("usage") if isinstance(completion, dict) else None
    return float((usage or {}).get("completion_cost") or 0.0)


def _call(action: Mapping[str, Any], observation: Mapping[str, Any] | None) -> RecordedCall:
    kind = str(action.get("action_args_class") or action.get("action_class") or "").rpartition(".")[2]
    tool = f"{kind.removesuffix('Args').removesuffix('Arguments')}:{action.get('command') or ''}"
    args = {name: value for name, value in action.items() if name not in _NOT_ARGUMENTS}
    if observation is None:
        return RecordedCall(tool, args, args_hash(args))
    text = str(observation.get("message") or "")
    failed = observation.get("expect_correction") or (observation.get("properties") or {}).get("fail_reason")
    return RecordedCall(
        tool,
        args,
        args_hash(args),
        output=text,
        output_hash=text_hash(text),
        error=error_kind(text) if failed else None,
    )
