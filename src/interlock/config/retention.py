"""How long what the store keeps is kept: from the configuration, or as a person asks for it once."""

from __future__ import annotations

import math

from interlock.config.sections import Settings
from interlock.core.errors import ConfigError
from interlock.journal.retention import Ages

__all__ = ["DAY_S", "ages", "ages_once"]

DAY_S = 86_400.0


def ages(settings: Settings) -> Ages:
    """Return the ages of `retention`.

    Raises:
        ConfigError: Keys would go before `tools.dedupe_window_s`, or before their content.
    """
    kept = settings.retention
    return Ages(_seconds(kept.content_days), _seconds(kept.keys_days), settings.tools.dedupe_window_s)


def ages_once(settings: Settings, older_than_days: float | None, *, content_only: bool) -> Ages:
    """Return the ages of one purge.

    Args:
        older_than_days: In place of both ages of the configuration.
        content_only: Keys stay, whatever their age.

    Raises:
        ConfigError: As `ages`, in words of the command line.
    """
    configured = ages(settings)
    if older_than_days is None:
        return Ages(configured.content_s, None, configured.horizon_s) if content_only else configured
    if not 0 <= older_than_days < math.inf:
        raise ConfigError("--older-than: is a number of days, at least 0")
    age_s = older_than_days * DAY_S
    if not content_only and age_s < configured.horizon_s:
        days = configured.horizon_s / DAY_S
        raise ConfigError(
            f"--older-than {older_than_days:g}: is shorter than tools.dedupe_window_s ({days:g} d): a request "
            f"delivered again would send its writes again; say at least {days:g}, or --content-only"
        )
    return Ages(age_s, None if content_only else age_s, configured.horizon_s)


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * DAY_S
