"""Which processes are known to be gone: those of this machine. Of other machines only leases can tell."""

from __future__ import annotations

from interlock.stores.owner import is_alive, this_process

__all__ = ["is_gone"]


def is_gone(owner: str) -> bool:
    """Whether it was a process of this machine since it was started, and has ended."""
    boot = this_process().partition(":")[0]
    return bool(boot) and owner.partition(":")[0] == boot and not is_alive(owner)
