"""The backend as its own process, for as long as a drill needs it."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType

from interlock.core.errors import ConfigError

__all__ = ["BackendProcess"]

STOP_S = 5.0


class BackendProcess:
    """`with BackendProcess(seed, time_scale) as url:`; it ends with the block, and with this process.

    Args:
        seed, time_scale: See `backend`.

    Raises:
        ConfigError: The process did not come up.
    """

    def __init__(self, seed: int, time_scale: float) -> None:
        self._words = ["--port", "0", "--seed", str(seed), "--time-scale", repr(time_scale), "--until-eof"]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> str:
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "interlock.chaos.backend", *self._words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the drill, which then ends the backend.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port.isdigit():
            _, errors = self._process.communicate()
            raise ConfigError(f"the backend did not start: {errors.strip()[-400:]}")
        return f"http://127.0.0.1:{port}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
