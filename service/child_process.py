"""Child processes that never outlive their parent, however it ends.

A child gets its own session, so that Ctrl-C in the terminal reaches only the parent, which then stops its children in
order. If the parent is killed, Linux sends the child SIGTERM (`PR_SET_PDEATHSIG`). Other systems have no such signal:
there, children of a killed parent keep running.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

STOP_SECONDS = 10.0

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Loaded before the fork, because importing between fork and exec is not safe.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def start_child(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` with `env` added to this process's environment; the child ends when this process does.

    Call it from a thread that lives as long as the child should: the kernel watches the thread that forked.
    """
    parent = os.getpid()

    def tie() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            # If the parent died before this request, no signal will come.
            if os.getppid() != parent:
                os._exit(1)

    return subprocess.Popen(  # noqa: S603 (commands are this package's own)
        list(command),
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=tie,
    )


def stop(child: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> None:
    """Terminate the child and its children, kill them after `seconds`, and return when the child is gone."""
    if child.poll() is None:
        _signal_group(child, signal.SIGTERM)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            _signal_group(child, signal.SIGKILL)
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _signal_group(child: subprocess.Popen[bytes], signum: int) -> None:
    try:
        os.killpg(child.pid, signum)
    except ProcessLookupError:
        return
