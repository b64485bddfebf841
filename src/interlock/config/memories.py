"""Wires what agents remember and keep: the store's memory, the developer's hooks, the guards that verbs pass."""

from __future__ import annotations

from typing import NamedTuple

from interlock.config.opening import Store
from interlock.config.options import as_options
from interlock.config.sections import Settings
from interlock.gateway.keeping import Keeping
from interlock.gateway.pipeline import Funnel
from interlock.gateway.remembering import Remembering
from interlock.gateway.verbs import Verbs
from interlock.memory.hooks import MemoryHooks
from interlock.memory.options import MemoryOptions
from interlock.record.metrics import Metrics
from interlock.resilience.threads import ToolThreads

__all__ = ["Memories", "memories"]


class Memories(NamedTuple):
    """What runs use of memory."""

    remembering: Remembering
    keeping: Keeping


def memories(
    settings: Settings, store: Store, hooks: MemoryHooks, funnel: Funnel, metrics: Metrics, pool: ToolThreads
) -> Memories:
    """Return the verbs of memory and artifacts; they pass the recorder and the switches of `funnel`."""
    options: MemoryOptions = as_options(MemoryOptions, settings.memory)
    verbs = Verbs(funnel.recorder, funnel.switches, store.secret)
    remembering = Remembering(
        store.memory, options, hooks, verbs, secret=store.secret, counting=metrics, in_thread=pool.submit
    )
    return Memories(remembering, Keeping(store.memory, options, verbs, metrics))
