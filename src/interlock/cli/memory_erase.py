"""Verb `memory erase`: nothing is left of a subject; with `--prove`, an attestation of what could be looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from interlock.cli.configuration import the_settings
from interlock.cli.memory_facts import TenantOption, scope_of
from interlock.cli.opening import Store, in_store
from interlock.cli.options import ConfigOption, JsonOption, StoreOption
from interlock.cli.output import note, print_json, print_text
from interlock.cli.progress import reading
from interlock.config.options import as_options
from interlock.config.settings import Settings
from interlock.core.clock import SYSTEM
from interlock.core.errors import ConfigError
from interlock.memory.residue import Region
from interlock.record.lines import LineSink, LoggingOptions
from interlock.supervisor.erasure import Attestation, ErasableStore, Erasure, Proof
from interlock.supervisor.erasure import erase as erase_subject

__all__ = ["erase"]

EXIT_NOT_ERASED = 1
STDERR = "stderr"


def erase(
    tenant: TenantOption,
    subject: Annotated[str, typer.Option("--subject", metavar="NAME", help="Of whom nothing shall be left.")],
    prove: Annotated[bool, typer.Option("--prove", help="Search every byte afterwards, and attest.")] = False,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="Rewrite every table or file; holds up all that write meanwhile.")
    ] = False,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            "--also", metavar="PATH", help="File or folder to search too: logs, caches. Repeatable.", exists=True
        ),
    ] = None,
    attestation: Annotated[
        Path | None, typer.Option("--attestation", metavar="FILE", help="Write the attestation there, as JSON.")
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase a subject: facts, history, index, and what runs have kept of it. Exit 1 where more may be left."""
    below, settings = scope_of(tenant, None, None), the_settings(config)
    if not subject.strip():
        raise ConfigError("--subject: is empty")
    prove = prove or attestation is not None
    paths = [*(also or ()), *(_written_by(settings) if prove else ())]
    said: dict[str, str] = {}

    async def work(opened: Store) -> Erasure | Attestation:
        if not isinstance(opened, ErasableStore):
            raise ConfigError("this store cannot erase")
        said["store"] = opened.path
        if not prove:
            return await erase_subject(opened, below, subject, SYSTEM, whole=vacuum)
        with reading(paths) as progress:
            proof = Proof(_logging(settings), paths, progress)
            return await erase_subject(opened, below, subject, SYSTEM, whole=vacuum, proof=proof)

    done = in_store(store, config, work)
    facts = _facts(done, tenant, said["store"])
    if attestation is not None:
        _write(attestation, facts)
    if as_json:
        print_json(facts)
    else:
        _print(done)
    left = done.erasure.kept if isinstance(done, Attestation) else done.kept
    if left or (isinstance(done, Attestation) and done.verdict != "erased"):
        raise typer.Exit(EXIT_NOT_ERASED)


def _written_by(settings: Settings) -> list[Path]:
    """Return the files that the configuration lets Interlock write, and what they were rotated to."""
    named = [Path(to) for to in (settings.logging.to, settings.record.path) if to not in {None, STDERR}]
    for path in named:
        # One that is only made by what is logged below is to be searched too.
        path.touch()
    return [found for path in named for found in sorted(path.parent.glob(f"{path.name}*")) if found.is_file()]


def _logging(settings: Settings) -> Callable[[str], None]:
    """Return what logs a text as an argument of a call, as this configuration has arguments logged."""

    def log(text: str) -> None:
        lines = LineSink(as_options(LoggingOptions, settings.logging), SYSTEM)
        fields: dict[str, Any] = {"tool": "memory.remember", "status": "success"}
        lines.event("info", "call", fields | ({"args": {"text": text}} if lines.wants_args else {}))
        lines.close()

    return log


def _facts(done: Erasure | Attestation, tenant: str, store: str) -> dict[str, Any]:
    erasure = done.erasure if isinstance(done, Attestation) else done
    facts: dict[str, Any] = {
        "at": datetime.fromtimestamp(SYSTEM.wall(), UTC).isoformat(timespec="seconds"),
        "store": store,
        "tenant_id": tenant,
        "erased": {"facts": erasure.facts, "artifacts": erasure.artifacts, "runs": list(erasure.runs)},
        "kept": [kept._asdict() for kept in erasure.kept],
    }
    if not isinstance(done, Attestation):
        return facts | {"regions": [asdict(region) for region in erasure.regions]}
    return {
        "attestation": "interlock.erasure.v1",
        "verdict": done.verdict,
        "subject_digest": done.subject_digest,
        **facts,
        "canary": {"recalled": done.canary_recalled, "seen_before": done.canary_seen},
        "searched": {"files": done.searched.files, "bytes": done.searched.size_bytes, "texts": len(erasure.texts)},
        "found": [asdict(found) for found in done.found],
        "regions": [asdict(region) for region in done.regions],
        "outside": list(done.outside),
    }


def _write(path: Path, facts: dict[str, Any]) -> None:
    try:
        path.write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    except OSError as error:
        raise ConfigError(f"--attestation {path}: {error.strerror or error}; the erasure is done") from error


def _print(done: Erasure | Attestation) -> None:
    erasure = done.erasure if isinstance(done, Attestation) else done
    print_text(f"erased: {erasure.facts} facts, {erasure.artifacts} artifacts, content of {len(erasure.runs)} runs")
    for kept in erasure.kept:
        print_text(("kept: ", "red"), f"run {kept.run_id}: {kept.why}; then erase again")
    if not isinstance(done, Attestation):
        _print_regions(erasure.regions)
        note("nothing was searched: --prove does, and attests")
        return
    print_text(f"searched: {done.searched.files} files, {done.searched.size_bytes} bytes, and the tables")
    print_text(
        f"canary: recalled, and seen in {done.canary_seen} places before" if done.canary_recalled else "no canary"
    )
    for found in done.found:
        print_text(
            ("found: ", "red"), f"{found.text} as {found.form}, {found.times} times: {found.where} at {found.at}"
        )
    _print_regions(done.regions)
    for where in done.outside:
        print_text("outside: ", where)
    print_text("verdict: ", (done.verdict, "green" if done.verdict == "erased" else "red"))


def _print_regions(regions: Sequence[Region]) -> None:
    for region in regions:
        print_text((f"{region.standing.value}: ", "yellow"), f"{region.where}: {region.why}")
