"""Options that many verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["ByOption", "ConfigOption", "JsonOption", "ReasonOption", "StoreOption", "TenantOption"]

StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="Store to work on; else INTERLOCK_STORE, else the configuration's."),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Configuration; else interlock.yaml, if there is one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
TenantOption = Annotated[str | None, typer.Option("--tenant", metavar="ID", help="Only this tenant.")]
ByOption = Annotated[str, typer.Option("--by", metavar="NAME", help="Who decides; stays on record.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; stays on record.")]
