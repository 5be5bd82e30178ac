import subprocess
import sys

import pytest

from service.child_process import stop
from service.launch.supervisor import NotReady, ProgramEnded, supervising


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


SLEEPER = python("import time; time.sleep(600)")
STUBBORN = python(
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(600)"
)


def test_everything_is_stopped_when_the_block_ends() -> None:
    with supervising() as supervisor:
        children = [supervisor.start(f"sleeper {number}", SLEEPER, {}) for number in range(2)]
        assert all(child.poll() is None for child in children)
    assert all(child.poll() is not None for child in children)


def test_a_program_that_ends_before_it_answers_is_named_with_its_code() -> None:
    with supervising() as supervisor:
        supervisor.start("The model", python("raise SystemExit(7)"), {})
        with pytest.raises(ProgramEnded, match="The model ended with exit code 7"):
            supervisor.wait_until("The model", lambda: False, seconds=60)


def test_a_program_that_never_answers_is_not_waited_for_for_ever() -> None:
    with supervising() as supervisor:
        supervisor.start("The model", SLEEPER, {})
        with pytest.raises(NotReady, match="The model did not answer within 0 seconds"):
            supervisor.wait_until("The model", lambda: False, seconds=0.2)


def test_an_announcement_is_read_to_its_last_line() -> None:
    talker = python("import time; print('A=1\\nB=2=3\\nready', flush=True); time.sleep(600)")
    with supervising() as supervisor:
        child = supervisor.start("The model", talker, {}, stdout=subprocess.PIPE)
        assert supervisor.read_announcement("The model", child, "ready", seconds=60) == ["A=1", "B=2=3"]


def test_a_program_run_to_its_end_must_succeed() -> None:
    with supervising() as supervisor:
        supervisor.finish("Fetching", python("pass"), {})
        with pytest.raises(ProgramEnded, match="Fetching failed with exit code 4"):
            supervisor.finish("Fetching", python("raise SystemExit(4)"), {})


def test_its_environment_is_laid_over_ours() -> None:
    with supervising() as supervisor:
        supervisor.finish(
            "Looking",
            python("import os; assert os.environ['OPM_X'] == '1' and os.environ['PATH']"),
            {"OPM_X": "1"},
        )


def test_a_program_deaf_to_sigterm_is_killed() -> None:
    with supervising() as supervisor:
        child = supervisor.start("The model", STUBBORN, {}, stdout=subprocess.PIPE)
        supervisor.read_announcement("The model", child, "ready", seconds=60)
        stop(child, seconds=0.2)
        assert child.returncode == -9
        with pytest.raises(ProgramEnded, match="signal SIGKILL"):
            supervisor.wait_until("The model", lambda: False, seconds=60)
