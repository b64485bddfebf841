"""What failed in a recorded run, where and why: one verdict, its evidence, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from interlock.core.categories import MODEL, Category
from interlock.forensics.findings import Across, Finding, see
from interlock.forensics.traces import RecordedRun
from interlock.forensics.tree import Turned, walk

__all__ = ["INSUFFICIENT", "PROMPT_ALARM_TOKENS", "Diagnosis", "Verdict", "diagnose"]

INSUFFICIENT: Literal["insufficient"] = "insufficient"
Verdict = int | Literal["model", "insufficient"]

# Past this a prompt is dear, slow, and close to what models take in.
PROMPT_ALARM_TOKENS = 128_000
# A loop of a hundred payments is shown by its first; the report counts runs, not lines.
_KEPT_DECIDING = 20
_KEPT_BESIDE = 10
# How sure "none of the categories" is: surer where the source says how it ended.
_SURE_OF_NOTHING = {True: 0.95, False: 0.85, None: 0.7}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One run, judged.

    Attributes:
        verdict: 1 to 8; `model` where none of the categories is in it (of a run that succeeded: nothing is);
            `insufficient` where the record does not hold what the answer needs, which is category 6.
        missing: Fields that the answer would need; empty unless `insufficient` or 6.
        evidence: What decided, then what is worth knowing, in the order of the run.
        path: The tree as it was walked, all questions.
    """

    run: RecordedRun
    verdict: Verdict
    missing: tuple[str, ...]
    evidence: tuple[Finding, ...]
    confidence: float
    path: tuple[Turned, ...]

    @property
    def category(self) -> Category | None:
        """The category, if the verdict names one."""
        if self.verdict == INSUFFICIENT:
            return Category.NO_OBSERVABILITY
        return Category(self.verdict) if isinstance(self.verdict, int) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the line of `--json`."""
        return {
            "run_id": self.run.run_id,
            "verdict": self.verdict,
            "missing": list(self.missing),
            "evidence": [finding.to_dict() for finding in self.evidence],
            "confidence": self.confidence,
        }


def diagnose(run: RecordedRun, across: Across | None = None, *, prompt_alarm: int = PROMPT_ALARM_TOKENS) -> Diagnosis:
    """Walk the tree over one run.

    Args:
        run: As a reader returned it.
        across: What earlier runs left, to see the same key come twice; None looks at this run alone.
        prompt_alarm: Tokens of one prompt from which growth is an incident.
    """
    path = walk(see(run, across or Across(), prompt_alarm))
    decided = next((turned for turned in path if turned.yes), None)
    # What would have answered a later question is worth knowing too: a loop of payments is both.
    beside = [finding for turned in path for finding in turned.findings if turned is not decided or not finding.decides]
    if decided is None:
        return Diagnosis(run, MODEL, (), tuple(beside[:_KEPT_BESIDE]), _SURE_OF_NOTHING[run.success], path)
    findings = [finding for finding in decided.findings if finding.decides]
    confidence = max(finding.confidence for finding in findings)
    evidence = tuple(findings[:_KEPT_DECIDING] + beside[:_KEPT_BESIDE])
    category = decided.branch.category
    if category is not Category.NO_OBSERVABILITY:
        return Diagnosis(run, int(category), (), evidence, confidence, path)
    missing = tuple(finding.reason.removeprefix("missing_") for finding in findings)
    # Rows that the record counts and does not hold were lost: an incident, not a format that says too little.
    verdict: Verdict = int(category) if missing == ("trace",) else INSUFFICIENT
    return Diagnosis(run, verdict, missing, evidence, confidence, path)
