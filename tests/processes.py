"""The service as users run it: a real process with a clean environment, killed and restarted on purpose.

What a test inside one process cannot show, a durable ledger after `kill -9` first of all, is shown with this.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
POLL_S = 0.05
# A test must end: what does not come up or go down in this time never will.
START_S_MAX = 60.0
STOP_S_MAX = 30.0
# Loopback is reached directly, whatever proxy the environment names.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class DidNotStartError(RuntimeError):
    """The process ended, or did not answer `GET /health`, before the time was up; carries its log."""


class Service:
    """The service on loopback; it keeps its port, its environment and its log across restarts.

    ``app`` is what uvicorn runs; None runs ``python -m service``.
    """

    def __init__(
        self, app: str | None, env: Mapping[str, str], port: int, cwd: Path, log: Path, options: Sequence[str] = ()
    ) -> None:
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}"
        program = ["uvicorn", app, "--app-dir", str(ROOT)] if app is not None else ["service"]
        self._command = [sys.executable, "-m", *program, "--port", str(port), *options]
        self._env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | dict(env)
        if app is None:
            self._env["PYTHONPATH"] = str(ROOT)
        self._cwd = cwd
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    def log(self) -> str:
        """Everything the process, and those before it, wrote to stdout and stderr."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Returns when `GET /health` answers 200. Raises `DidNotStartError`."""
        if self._process is not None:
            raise RuntimeError(f"the process {self._process.pid} still runs: stop it first")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._env,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        deadline = time.monotonic() + START_S_MAX
        while not self._healthy():
            status = self._process.poll()
            if status is not None or time.monotonic() > deadline:
                self.kill9()
                why = f"ended with {status}" if status is not None else f"was not healthy in {START_S_MAX} s"
                raise DidNotStartError(f"the service {why}; its log:\n{self.log()}")
            time.sleep(POLL_S)

    def kill9(self) -> None:
        """Kills the process and its workers where they stand, as a power cut would, and waits until it is gone."""
        process = self._running()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S_MAX)
        self._process = None

    def terminate(self) -> int:
        """Asks the process to end (SIGTERM) and returns its status. Raises `subprocess.TimeoutExpired`."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        status = process.wait(STOP_S_MAX)
        self._process = None
        return status

    def restart(self, env: Mapping[str, str] | None = None) -> None:
        """Terminates the process if it runs and starts it again, with `env` over the environment it had."""
        if self._process is not None:
            self.terminate()
        self._env |= dict(env or {})
        self.start()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the process does not run: start() or restart() it first")
        return self._process

    def _healthy(self) -> bool:
        try:
            with _DIRECT.open(f"{self.base_url}/health", timeout=POLL_S * 20) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def service_process(
    env: Mapping[str, str],
    port: int | None = None,
    *,
    app: str | None = "service.app:app",
    cwd: Path | None = None,
    options: Sequence[str] = (),
) -> Iterator[Service]:
    """Runs the service and kills what is left of it at the end.

    The environment is `PATH`, `HOME` and `env` alone, and the working directory an empty one (or `cwd`): no
    `.env` of the developer is read. `options` are the program's own. Raises `DidNotStartError`.
    """
    with tempfile.TemporaryDirectory(prefix="service-") as scratch:
        empty = Path(scratch) / "cwd"
        empty.mkdir()
        log = Path(scratch) / "log.txt"
        service = Service(app, env, free_port() if port is None else port, cwd or empty, log, options)
        service.start()
        try:
            yield service
        finally:
            if service._process is not None:
                service.kill9()


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
