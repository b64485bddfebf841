"""Which configuration a verb works on: the file that is named, else `interlock.yaml` here, else the defaults."""

from __future__ import annotations

from pathlib import Path

from interlock.config.settings import Settings, load_settings

__all__ = ["CONFIG_FILE", "the_settings"]

CONFIG_FILE = Path("interlock.yaml")


def the_settings(config: Path | None) -> Settings:
    """Return the settings that a verb works with.

    Raises:
        ConfigError: The file cannot be used.
    """
    if config is None and not CONFIG_FILE.exists():
        return load_settings(None)
    return load_settings(config or CONFIG_FILE)
