"""Run several programs as one: a foreground process starts, watches and stops them together.

Programs start one after the other, each once the previous one answers. When one ends, or this process gets a signal,
all are stopped, the last started first.

    LaunchError
    ├── ProgramEnded    a program ended by itself
    └── NotReady        a program did not answer in time
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

from service.child_process import start_child, stop

POLL_SECONDS = 0.1


class LaunchError(Exception):
    """The base. Its message is one line for the operator."""


class ProgramEnded(LaunchError):
    """A program ended; ``code`` is its exit code, negative for a signal."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message)


class NotReady(LaunchError):
    """A program did not answer in time."""


class StopAsked(Exception):
    """A person or the system asked this process to end; not an error."""


class Supervisor:
    """Starts and watches programs. Create it with `supervising()`, which stops them at the end of its block."""

    def __init__(self, parent: int | None = None) -> None:
        self._parent = parent
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._stop_asked = False

    def ask_to_stop(self, _signum: int, _frame: FrameType | None) -> None:
        self._stop_asked = True

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str], *, stdout: int | None = None
    ) -> subprocess.Popen[bytes]:
        self._check()
        child = start_child(command, env=env, stdout=stdout)
        self._running.append((name, child))
        return child

    def finish(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Run a program to its end, without a time limit; raises ProgramEnded unless it succeeds."""
        child = start_child(command, env=env)
        try:
            while child.poll() is None:
                self._pause()
        finally:
            stop(child)
        if child.returncode != 0:
            raise ProgramEnded(f"{name} failed with exit code {child.returncode}.", child.returncode)

    def wait_until(self, name: str, answers: Callable[[], bool], seconds: float) -> None:
        """Wait until `answers()` is true; raises NotReady after `seconds`, ProgramEnded if any program ends."""
        deadline = time.monotonic() + seconds
        while not answers():
            if time.monotonic() > deadline:
                raise NotReady(f"{name} did not answer within {seconds:.0f} seconds; everything was stopped.")
            self._pause()

    def read_announcement(self, name: str, child: subprocess.Popen[bytes], last: str, seconds: float) -> list[str]:
        """Return the lines that `child` (started with stdout=PIPE) writes before the line `last`."""
        assert child.stdout is not None
        pipe = child.stdout.fileno()
        written = bytearray()

        def announced() -> bool:
            with selectors.DefaultSelector() as selector:
                selector.register(pipe, selectors.EVENT_READ)
                if selector.select(timeout=0):
                    written.extend(os.read(pipe, 65536))
            return f"{last}\n".encode() in written

        self.wait_until(name, announced, seconds)
        return written.decode().partition(f"{last}\n")[0].splitlines()

    def watch(self) -> None:
        """Wait until a program ends (raises ProgramEnded) or a signal asks to stop (raises StopAsked)."""
        while True:
            self._pause()

    def stop_all(self) -> None:
        while self._running:
            _name, child = self._running.pop()
            stop(child)

    def _pause(self) -> None:
        self._check()
        time.sleep(POLL_SECONDS)

    def _check(self) -> None:
        orphaned = self._parent is not None and os.getppid() != self._parent
        if self._stop_asked or orphaned:
            raise StopAsked
        for name, child in self._running:
            code = child.poll()
            if code is not None:
                how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
                raise ProgramEnded(f"{name} ended with {how}; everything was stopped.", code)


@contextlib.contextmanager
def supervising(parent: int | None = None) -> Iterator[Supervisor]:
    """A supervisor that handles SIGINT, SIGTERM and SIGHUP in its block and leaves no program running after it.

    With `parent`, the process id of this process's parent, the end of that process is a request to stop, too.
    """
    supervisor = Supervisor(parent)
    before = {
        signum: signal.signal(signum, supervisor.ask_to_stop)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield supervisor
    finally:
        supervisor.stop_all()
        for signum, handler in before.items():
            signal.signal(signum, handler)
