"""Which recorded calls changed the world, judged by what they said and got, never by what a tool is called.

A record's own word holds. Without one, a tool writes if an answer of its own says so: it confirms something
done ("… has been made successfully"), it acknowledges a payload with nothing, it hands the payload back as
the new state, or it shows a state of an object that differs from the one shown just before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from interlock.forensics.traces import RecordedCall, RecordedRun

__all__ = ["writes_of"]

_SHORT = 300
_DONE = re.compile(
    r"\b(?:success(?:ful(?:ly)?)?|succeeded|sent|created|added|updated|deleted|removed|cancel(?:l)?ed|scheduled|booked"
    r"|reserved|made|granted|revoked|enabled|disabled|connected|disconnected|invited|shared|posted|published|appended"
    r"|transferred|saved|written|wrote|resumed|suspended|applied|submitted|edited|inserted|replaced|uploaded|moved"
    r"|renamed|installed|started|stopped|restarted|re-?seated|refunded|charged|paid|placed|generated|set to|will reset"
    r"|is now|turned o(?:n|ff))\b",
    re.IGNORECASE,
)
# A state that is reported ("… is connected", "no …") names no deed; "is now" and "has been" do.
_STATE = re.compile(r"\b(?:is|are)\b(?! now\b)|\bcurrently\b|\bno\b|\bnot\b", re.IGNORECASE)
# A message around the confirmation: {'message': '…'}, or the text of an MCP result, printed.
_WRAPPED = re.compile(r"""^[\s\[{(]*['"]?(?:message|result|status|detail|output)['"]?\s*[:=]\s*['"]?""", re.IGNORECASE)
_PRINTED = re.compile(r"""^meta=.*?text=['"](.{0,600})""", re.DOTALL)
_INSIDE = re.compile(r"""^\{(?:\\n|\s)*"_meta".*?"text":\s*"(.{0,300})""", re.DOTALL)
_MESSAGE = re.compile(r"""message[\\"': ]+([^"'\\]{4,200})""")
_BREAK = re.compile(r"\\+n|\n")
_MESSAGES = ("message", "result", "status", "detail")
# What a function that is called for its effect alone gives back.
_NOTHING = frozenset({"none", "null", "ok", "done", "success", "undefined"})
_WORD = re.compile(r"\w{3,}")
_PAYLOAD_LETTERS = 12
_PAYLOAD_WORDS = 6


# The last state of each object that was shown: by which tool, with which fields, in which bytes.
Shown = dict[str, tuple[str, frozenset[str], bytes]]


def writes_of(run: RecordedRun) -> list[bool]:
    """Return, for each call of the run in order, whether it changed the world if it succeeded."""
    calls = list(run.calls)
    if all(call.write is not None for call in calls):
        return [bool(call.write) for call in calls]
    writing: set[str] = set()
    shown: Shown = {}
    for call in calls:
        if call.error is None and call.write is None and call.tool not in writing and _tells_of_a_write(call, shown):
            writing.add(call.tool)
    return [call.tool in writing if call.write is None else call.write for call in calls]


def _tells_of_a_write(call: RecordedCall, shown: Shown) -> bool:
    text = (call.output or "").strip()
    args = call.args if isinstance(call.args, dict) else {}
    for wrapping in (_PRINTED, _INSIDE):
        if (inside := wrapping.match(text)) is not None:
            text = inside[1]
    if text[:1] == "{" and (state := _object(text)) is not None:
        return _made_or_changed(call.tool, args, state, shown)
    if text[:1] == "[":
        return False
    if text[:1] == "{" and (message := _MESSAGE.search(text)) is not None:
        return _confirms(message[1])
    if text.lower() in _NOTHING:
        return True
    return _confirms(text) or _hands_back(args, text)


def _confirms(text: str) -> bool:
    """Whether a short answer begins by naming a deed."""
    first = _BREAK.split(_WRAPPED.sub("", text[:_SHORT], count=1), maxsplit=1)[0]
    head = first.split(": ", 1)[0]
    deed = _DONE.search(head)
    return deed is not None and len(head.split()) > 1 and not _STATE.search(first)


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _made_or_changed(tool: str, args: Mapping[str, Any], state: dict[str, Any], shown: Shown) -> bool:
    """Whether an object came back that was made of the arguments, or that another tool showed in another state."""
    message = next((state[key] for key in _MESSAGES if isinstance(state.get(key), str)), None)
    if message is not None and " " in message and _confirms(message):
        return True
    if sum(value == state.get(key, _ABSENT) for key, value in args.items()) > 2:
        return True
    named = {value for value in args.values() if isinstance(value, str)}
    name = next((value for value in state.values() if isinstance(value, str) and value in named), None)
    if name is None or len(state) < 3:
        return False
    which = f"{next(iter(state))} {name}"
    now = orjson.dumps(state, option=orjson.OPT_SORT_KEYS)
    before = shown.get(which)
    fields = frozenset(state)
    shown[which] = (tool, fields, now)
    if before is None or before[0] == tool or before[2] == now:
        return False
    return len(fields & before[1]) >= 0.8 * min(len(fields), len(before[1]))


_ABSENT = object()


def _hands_back(args: Mapping[str, Any], output: str) -> bool:
    """Whether the answer holds the text that the arguments carried."""
    payload = [text for value in args.values() if not isinstance(value, list) for text in _texts(value)]
    if sum(_stands_in(value, output) for value in args.values()) > 2:
        return True
    words = [word for text in payload if _is_payload(text) for word in _WORD.findall(_BREAK.sub(" ", text[:400]))]
    if len(words) < _PAYLOAD_WORDS:
        return False
    there = " ".join(_WORD.findall(_BREAK.sub(" ", output)))
    phrases = (" ".join(words[i : i + _PAYLOAD_WORDS]) for i in range(min(len(words) - _PAYLOAD_WORDS + 1, 12)))
    return any(phrase in there for phrase in phrases)


def _stands_in(value: Any, output: str) -> bool:
    return isinstance(value, str) and len(value) > 2 and value in output


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def _is_payload(value: str) -> bool:
    return len(value) >= _PAYLOAD_LETTERS and " " in value.strip()
