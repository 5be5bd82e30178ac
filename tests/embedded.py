"""The real embedded models as a child process, for tests marked `models`."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

# The first run downloads 98 MB; later ones load in seconds.
READY_SECONDS = 600.0


@dataclass(frozen=True)
class EmbeddedProcess:
    process: subprocess.Popen[str]
    llm_base_url: str
    emb_base_url: str

    def cpu_seconds(self) -> float:
        """Processor time used so far by all threads (Linux)."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:  # noqa: PTH123
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def embedded_process(chat: str = "smollm2-135m-instruct") -> Iterator[EmbeddedProcess]:
    """Both endpoints on a free loopback port; on leaving, the process must end cleanly at SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service.local_models", "--port", "0"],
        env={**os.environ, "LOCAL_CHAT_MODEL": chat},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        announced: dict[str, str] = {}
        deadline = time.monotonic() + READY_SECONDS
        for line in process.stdout:
            if line.strip() == "ready":
                break
            name, _, value = line.strip().partition("=")
            announced[name] = value
            assert time.monotonic() < deadline
        else:
            raise AssertionError(f"the embedded models ended with {process.wait()} before they were ready")
        yield EmbeddedProcess(process, announced["LLM_BASE_URL"], announced["EMB_BASE_URL"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def embedded_models(chat: str = "smollm2-135m-instruct") -> Iterator[tuple[str, str]]:
    """(llm_base_url, emb_base_url) of a running pair; model names are `chat` and `multilingual-e5-small`."""
    with embedded_process(chat) as running:
        yield running.llm_base_url, running.emb_base_url
