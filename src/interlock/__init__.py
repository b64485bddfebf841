"""Interlock stands between an AI agent and the world.

The house, from the top; a floor imports only floors below it:

    cli                 the command line
    adapters            one file a framework: its calls and requests, met at one seam
    chaos               faults, and the drill: ships with the product
    forensics           recorded runs: readers, and the live funnel driven by them
    config              the YAML as types; the only place where parts are wired
    supervisor          the run: opened, driven, stopped; always answered with a RunResult
    gateway · stores    the call: the funnel, in order, once · where it is kept
    policy budget validation journal resilience record    the guards, independent siblings
    core                words only: reasons, errors, calls, canonical JSON, clock
"""

# Names are imported on first use, so that `import interlock` (and `interlock --help`) stays cheap. Every
# class of `interlock.errors` can be had from here too; the names listed are those most code needs.
# Type checkers read the same names from `__init__.pyi` beside this file.

import importlib

_HOMES = {
    "Interlock": "interlock.config.gate",
    "InterlockError": "interlock.core.errors",
    "NotPerformed": "interlock.core.errors",
    "Observation": "interlock.supervisor.observation",
    "OutcomeUnknown": "interlock.core.errors",
    "Run": "interlock.supervisor.run",
    "RunResult": "interlock.core.results",
    "RunStopped": "interlock.core.errors",
    "StopReason": "interlock.core.reasons",
    "Tool": "interlock.gateway.tools",
    "ToolDenied": "interlock.core.errors",
    "ToolOutputInvalid": "interlock.core.errors",
    "classify_tool_error": "interlock.resilience.classify",
    "errors": "interlock.core.errors",
    "register_classifier": "interlock.resilience.classify",
}

__all__ = list(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    home = _HOMES.get(name, "interlock.core.errors")
    module = importlib.import_module(home)
    if name not in _HOMES and name not in module.__all__:
        raise AttributeError(f"module 'interlock' has no attribute {name!r}")
    value = module if home.rpartition(".")[2] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
