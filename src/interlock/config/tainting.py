"""Which outputs are untrusted, and what that means for which tool, as the file says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interlock.config.sections import Settings
from interlock.core.calls import ToolSpec
from interlock.core.canonical import plain_hash
from interlock.core.errors import ConfigError
from interlock.core.trust import Lineage
from interlock.policy.globs import GlobSet
from interlock.policy.taint import Taint, TaintRule
from interlock.policy.when_tainted import Labels
from interlock.supervisor.requests import RunRequest

__all__ = ["Tainting"]


class Tainting:
    """`tools.untrusted_output` and `tools.when_tainted`.

    Attributes:
        watching: Whether what runs read is labelled, call by call.
        keeps_text: Whether some rule names arguments, so that what was read is kept to be compared.

    Raises:
        ConfigError: A glob cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        tools = settings.tools
        self._rules = tools.when_tainted
        self._globs = GlobSet(tools.when_tainted, key="tools.when_tainted")
        declared = tools.untrusted_output
        # What nobody vouches for is untrusted.
        self._untrusted = GlobSet(("*",) if declared is None else declared, key="tools.untrusted_output")
        self.watching = bool(self._rules) or declared is not None
        self.keeps_text = any(rule.arguments for rule in self._rules.values())

    def untrusted(self, name: str) -> bool:
        """Whether others may have written what this tool brings back."""
        return self._untrusted.match(name) is not None

    def rule_for(self, name: str) -> tuple[str, TaintRule] | None:
        """Return the rule of a tool, and the glob it stands under; None where there is none."""
        glob = name if name in self._rules else self._globs.match(name)
        return None if glob is None else (glob, self._rules[glob])

    def rule_of(self, tool: ToolSpec) -> TaintRule | None:
        """Return the rule that some call of this tool may meet: a glob concerns writes, a full name any call."""
        found = self.rule_for(tool.name)
        return None if found is None or not (tool.may_write or found[0] == tool.name) else found[1]

    def check(self, spec: ToolSpec) -> None:
        """Refuse a tool whose rule, under its full name, could never apply.

        Raises:
            ConfigError: An argument is named that the tool does not have.
        """
        rule = self._rules.get(spec.name)
        names: Sequence[str] | None = getattr(spec.inputs, "names", None)
        if rule is None or names is None or getattr(spec.inputs, "open", False):
            return
        for argument in rule.arguments:
            if argument not in names:
                raise ConfigError(
                    f"tools.when_tainted.{spec.name}: {argument!r} is no argument of the tool: write one of "
                    f"{', '.join(names) or 'none (it has none)'}"
                )

    def labels(self) -> Labels:
        """Return the guard that labels what runs read."""
        return Labels(watching=self.watching, untrusted=self.untrusted, keeps_text=self.keeps_text)

    def lineage(self, request: RunRequest) -> Lineage | None:
        """Return what takes in what a run of this request reads; None where nobody asks."""
        return self.taint([request.task, dict(request.inputs), request.payload]) if self.watching else None

    def taint(self, task: Any) -> Taint:
        """Return what takes in what a run with this task reads."""
        return Taint(keeps_text=self.keeps_text, task=task)

    def version(self, policy_version: str) -> str:
        """Return the version of the whole policy: approvals are bound to it."""
        if not self._rules:
            return policy_version
        rules = {glob: [rule.then, sorted(rule.arguments)] for glob, rule in self._rules.items()}
        return plain_hash([policy_version, rules, sorted(self._untrusted.patterns)])[:12]
