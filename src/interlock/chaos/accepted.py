"""An accepted record: what a suite's trials looked like when somebody last looked at it, to be held against later ones.

A text file of sections, `== NAME` and lines. The first has the rules of most tasks; of each task there are those of its
rules that are others, its verdict, and the account of every repetition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from interlock.chaos.trying import Outcome
from interlock.core.errors import ConfigError

__all__ = ["RULES", "changes", "read_accepted", "sections_of", "text_of"]

Sections = Mapping[str, Sequence[str]]

RULES = "rules, where a task has no others"
HEAD = "== "
SHOWN = 40
NOTE = (
    "# What these trials looked like when they were last accepted. Behaviour that changes, changes lines.",
    "# Times are seconds of virtual time; #a1b2c3 stands for a key, a digest or the rest of a long text.",
)


def sections_of(outcomes: Sequence[Outcome], shared: Sequence[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Return the accounts of outcomes that were asked to give one.

    Args:
        shared: Rules that are not written with each task; those of most tasks, when left out.
    """
    if shared is None:
        shared = Counter(outcome.rules for outcome in outcomes).most_common(1)[0][0] if outcomes else ()
    found: dict[str, tuple[str, ...]] = {RULES: tuple(shared)} if shared else {}
    common = set(shared)
    for outcome in outcomes:
        lines = [line for line in outcome.rules if line not in common]
        without = f"; without faults: {outcome.baseline}" if outcome.baseline else ""
        lines.append(f"{outcome.verdict}{without}")
        for each in outcome.repetitions:
            effects = "".join(f", {times} of {tool}" for tool, times in sorted(each.effects.items()))
            lines.append(f"seed {each.seed}: {each.reason}{effects}")
            lines += each.account
        found[outcome.name] = tuple(lines)
    return found


def text_of(sections: Sections, note: Sequence[str] = NOTE) -> str:
    """Return the text of a file with these sections."""
    lines = list(note)
    for name, section in sections.items():
        lines += ["", f"{HEAD}{name}", *section]
    return "\n".join(lines) + "\n"


def read_accepted(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the sections of a file.

    Raises:
        ConfigError: It is not there, or is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file: write it with --accept {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    found: dict[str, tuple[str, ...]] = {}
    for part in text.split(f"\n{HEAD}")[1:]:
        name, *lines = part.rstrip("\n").split("\n")
        found[name] = tuple(lines)
    if not found:
        raise ConfigError(f"{path}: no accepted record: write one with --accept {path}")
    return found


def changes(accepted: Sections, found: Sections, *, longest: int = SHOWN) -> list[str]:
    """Return what differs, in lines that begin with `-` (as accepted), `+` (as found) or name the place.

    Args:
        longest: Lines of one section; of more, their number is told.
    """
    lines: list[str] = []
    for name in dict.fromkeys((*accepted, *found)):
        if name not in found:
            lines.append(f"{name}: is accepted, and was not found")
        elif name not in accepted:
            lines.append(f"{name}: is not in the accepted record")
        elif tuple(accepted[name]) != tuple(found[name]):
            differing = list(_differing(accepted[name], found[name]))
            lines += [name, *differing[:longest]]
            if len(differing) > longest:
                lines.append(f"  … {len(differing) - longest} more lines")
    return lines


def _differing(accepted: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    place = ""
    for what, a, b, c, d in SequenceMatcher(None, accepted, found, autojunk=False).get_opcodes():
        if what == "equal":
            place = next((line for line in reversed(accepted[a:b]) if not line.startswith(" ")), place)
            continue
        first = (*accepted[a:b], *found[c:d])[0]
        if first.startswith(" ") and place:
            yield f"    {place}"  # of which call these lines are
            place = ""
        yield from (f"  - {line}" for line in accepted[a:b])
        yield from (f"  + {line}" for line in found[c:d])
