"""Verbs `doubts` and `settle`: writes of which nobody knows whether they happened, and a person's word on one."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer
from typer.core import TyperCommand

from interlock.cli.claims import claim_facts, evidence_line, needs, settle_command
from interlock.cli.opening import Store, in_store
from interlock.cli.options import ByOption, ConfigOption, JsonOption, ReasonOption, StoreOption, TenantOption
from interlock.cli.output import ago, code, note, print_json, print_text, when
from interlock.core.canonical import NotCanonical, canonical_json
from interlock.core.errors import ConfigError
from interlock.journal.store import Claim, ClaimState, Settlement

__all__ = ["app"]

app = typer.Typer()

SHORTEST_KEY = 8
KEY_DIGITS = 48


@app.command()
def doubts(
    tenant: TenantOption = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="List writes that happened, but whose answer could not be believed.")
    ] = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List writes of which nobody knows whether they happened, oldest first, with the command that closes each."""

    async def read(opened: Store) -> list[Claim]:
        return await opened.doubts(tenant, unverified=unverified)

    found = in_store(store, config, read)
    if as_json:
        print_json([claim_facts(claim, store) for claim in found])
        return
    for claim in found:
        _print(claim, store, unverified=unverified)
    if unverified:
        note(f"{len(found)} writes happened and their answers were withheld; nothing is sent again")
    else:
        note(f"{len(found)} in doubt" + ("; look at the remote first, then settle each" if found else ""))


def _print(claim: Claim, store: str | None, *, unverified: bool) -> None:
    age = ago(claim.sent_ago_s)
    place = f" {claim.path}" if claim.path else ""
    print_text((claim.tool, "bold"), f"  args {claim.args_digest.hex()[:8]}  sent {claim.sends}x  ", (age, "yellow"))
    print_text(
        f"  who       {claim.agent} for {claim.tenant_id}, run {claim.run_id}{place}, request {claim.request_id}"
    )
    print_text(f"  when      {when(claim.first_sent_at)}, last {when(claim.last_sent_at)}; turn {claim.turn}")
    print_text(f"  evidence  {evidence_line(claim)}")
    if unverified:
        print_text(f"  sent key  {claim.sent_key}")
        print_text(f"  key       {claim.key.hex()}")
    else:
        print_text(f"  needs     {needs(claim)}")
        print_text("  happened: ", code(settle_command(claim, store, done=True)))
        print_text("  did not:  ", code(settle_command(claim, store)))
    print_text("")


class _Settle(TyperCommand):
    """`--done` may stand alone: it happened, and the result is not known."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given: list[str] = []
        for i, arg in enumerate(args):
            given.append(arg)
            following = args[i + 1] if i + 1 < len(args) else "--"
            if arg == "--done" and following.startswith("--"):
                given.append("")
        return super().parse_args(ctx, given)


@app.command(cls=_Settle)
def settle(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key of the doubt, or the first digits of it.")],
    by: ByOption,
    reason: ReasonOption,
    done: Annotated[
        str | None,
        typer.Option("--done", metavar="[RESULT]", help="It happened; RESULT (JSON) is what duplicates get."),
    ] = None,
    not_performed: Annotated[
        bool, typer.Option("--not-performed", help="It did not happen, and may be done again.")
    ] = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close a doubt on your word, after a look at the remote: it happened, or it did not."""
    if (done is None) is not not_performed:
        raise typer.BadParameter("say either --done [RESULT] or --not-performed")
    if not by.strip() or not reason.strip():
        raise typer.BadParameter("--by and --reason may not be empty: they stay on record")
    settlement = Settlement(
        ClaimState.FAILED_CLEAN if not_performed else ClaimState.DONE,
        result=_result(done),
        by=by.strip(),
        reason=reason.strip(),
    )

    async def close(opened: Store) -> Claim:
        claim = _chosen(key, await opened.doubts())
        if not await opened.settle(claim.key, settlement):
            raise ConfigError(f"{claim.key.hex()}: closed meanwhile; `interlock show {claim.run_id}` says by whom")
        return claim

    claim = in_store(store, config, close)
    state = settlement.state.value
    if as_json:
        print_json(
            {"key": claim.key.hex(), "tool": claim.tool, "run_id": claim.run_id, "state": state, "by": by.strip()}
        )
    else:
        print_text((claim.tool, "bold"), f" {claim.key.hex()} is closed: ", (state.replace("_", " "), "green"))


def _result(done: str | None) -> bytes | None:
    """Return canonical JSON of what the write gave; text that is no JSON is taken as text."""
    if not done:
        return None
    try:
        return canonical_json(orjson.loads(done))
    except NotCanonical as error:
        raise typer.BadParameter(f"RESULT: {error}") from None
    except orjson.JSONDecodeError:
        return canonical_json(done)


def _chosen(key: str, open_claims: list[Claim]) -> Claim:
    digits = key.strip().lower()
    if len(digits) < SHORTEST_KEY:
        raise ConfigError(f"{key!r}: give at least {SHORTEST_KEY} digits of the key (`interlock doubts` lists them)")
    found = [claim for claim in open_claims if claim.key.hex().startswith(digits)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{key!r} begins {len(found)} keys: give more digits, up to {KEY_DIGITS}")
    raise ConfigError(f"{key!r}: no open doubt has this key; `interlock doubts` lists them")
