"""Verb `approvals`: what agents ask a person for, and the person's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from interlock.cli.opening import Store, in_store
from interlock.cli.options import ByOption, ConfigOption, JsonOption, StoreOption, TenantOption
from interlock.cli.output import ago, code, command, note, print_json, print_text, when
from interlock.core.clock import SYSTEM
from interlock.core.errors import ConfigError
from interlock.policy.approval import ApprovalRow, ApprovalState

__all__ = ["app"]

app = typer.Typer()
verbs = typer.Typer(no_args_is_help=True, help="List, approve and deny what agents ask for.")
app.add_typer(verbs, name="approvals")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Of the approval; `interlock approvals list` has it.")]
WhyOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; stays on record.")]
StateOption = Annotated[
    str, typer.Option("--state", metavar="STATE", help=f"{', '.join(ApprovalState)}, or all.", show_default=True)
]


@verbs.command("list")
def list_approvals(
    state: StateOption = "pending",
    tenant: TenantOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what agents ask for, newest first."""
    wanted = None if state == "all" else _state(state)

    async def read(opened: Store) -> Sequence[ApprovalRow]:
        return await opened.approvals.list(tenant_id=tenant, state=wanted, limit=limit)

    found = in_store(store, config, read)
    if as_json:
        print_json([_facts(row) for row in found])
        return
    for row in found:
        _print(row, store)
    note(f"{len(found)} {'in all' if wanted is None else wanted.value}")


@verbs.command()
def approve(
    id: IdArgument,  # noqa: A002 - the word of the port
    by: ByOption,
    reason: WhyOption = "",
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say yes: the write goes out once, when its run goes on."""
    _decide(id, by, reason, store, approved=True, config=config, as_json=as_json)


@verbs.command()
def deny(
    id: IdArgument,  # noqa: A002
    by: ByOption,
    reason: WhyOption = "",
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say no: the write is refused and not asked for again."""
    _decide(id, by, reason, store, approved=False, config=config, as_json=as_json)


def _decide(
    approval_id: str, by: str, reason: str, store: str | None, *, approved: bool, config: Any, as_json: bool
) -> None:
    async def decide(opened: Store) -> ApprovalRow | None:
        return await opened.approvals.decide(approval_id, approved, by, reason)

    row = in_store(store, config, decide)
    if row is None:
        raise ConfigError(f"no approval has the id {approval_id!r}; `interlock approvals list` has them")
    meant = ApprovalState.APPROVED if approved else ApprovalState.DENIED
    # A decided row is returned as it stands: somebody was faster, or nobody was in time.
    if row.state is not meant or row.decided_by != by.strip():
        who = f" by {row.decided_by}" if row.decided_by else ""
        raise ConfigError(f"{approval_id}: already {row.state.value}{who}; nothing was changed")
    if as_json:
        print_json(_facts(row))
    else:
        print_text(
            (row.tool, "bold"), " is ", (row.state.value, "green" if approved else "red"), f" by {row.decided_by}"
        )


def _state(text: str) -> ApprovalState:
    try:
        return ApprovalState(text)
    except ValueError:
        raise typer.BadParameter(f"--state: one of {', '.join(ApprovalState)}, or all") from None


def _facts(row: ApprovalRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": row.state.value,
        "tool": row.tool,
        "asks": row.rendered,
        "tenant_id": row.tenant_id,
        "run_id": row.run_id,
        "effect_key": row.effect_key.hex(),
        "policy_version": row.policy_version,
        "requested_at": when(row.requested_at),
        "expires_at": when(row.expires_at),
        "decided_at": when(row.decided_at) or None,
        "decided_by": row.decided_by,
        "reason": row.reason,
    }


def _print(row: ApprovalRow, store: str | None) -> None:
    now = SYSTEM.wall()
    print_text((row.rendered or row.tool, "bold"))
    asked = f"  asked {ago(now - row.requested_at)} ago by run {row.run_id} for {row.tenant_id}"
    if row.state is ApprovalState.PENDING:
        print_text(asked, ", expires in ", (ago(row.expires_at - now), "yellow"))
        print_text("  ", code(command(store, "approvals", "approve", row.id, "--by", "YOU")))
        print_text("  ", code(command(store, "approvals", "deny", row.id, "--by", "YOU", "--reason", "WHY")))
    else:
        who = f" by {row.decided_by}" if row.decided_by else ""
        print_text(asked, f"; {row.state.value}{who} {when(row.decided_at)} {row.reason}".rstrip())
    print_text("")
