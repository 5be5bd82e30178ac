"""How long one long question makes everybody else wait: ``python -m benchmarks.loop_lag``.

A question of each length is asked of a service in a process of its own, over an upstream that costs next to nothing.
Meanwhile this process asks for ``/health`` again and again: the longest answer is how long the event loop was held.
The second column is the turn after it, whose window holds the long one; the last line is the service's peak memory.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.processes import Service, service_process
from tests.upstream import CHAT_MODEL, EMBEDDING_MODEL

SIZES = (100, 100_000, 1_000_000, 3_000_000)
"""In characters. The first one warms up."""
WORDS = "the quick brown fox jumps over the lazy dog, and 42 more; 我的猫叫味噌。"
_ASK = """
import http.client, sys
body = open(sys.argv[2], "rb").read()
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=120)
connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
answer = connection.getresponse()
answer.read()
print(answer.status)
"""
"""The asker: a process of its own, so that its work does not delay the clock."""


def _longest_wait_ms(service: Service, body: Path) -> float:
    """Ask a question, and return the longest that anybody else waited meanwhile."""
    command = [sys.executable, "-c", _ASK, str(service.port), str(body)]
    longest = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asking:
        while asking.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=120)
            began = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            longest = max(longest, time.perf_counter() - began)
            connection.close()
            time.sleep(0.002)
        assert asking.stdout is not None
        status = asking.stdout.read().strip()
    assert status in {"200", "400"}, status
    return longest * 1000


def _peak_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) // 1024


def main() -> None:
    """Print the longest wait for each length of a question, and of the turn after it."""
    upstream = subprocess.Popen([sys.executable, "-m", "benchmarks.load_upstream"], stdout=subprocess.PIPE, text=True)
    assert upstream.stdout is not None
    try:
        url = upstream.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as folder:
            env = {"STORAGE_DIR": f"{folder}/storage", "LLM_BASE_URL": url, "LLM_MODEL": CHAT_MODEL}
            env |= {"EMB_BASE_URL": url, "EMB_MODEL": EMBEDDING_MODEL, "LLM_CONTEXT_TOKENS": "4000000"}
            with service_process(env) as service:
                for size in SIZES:
                    text = (WORDS * (size // len(WORDS) + 1))[:size]
                    waits = []
                    for question in (text, "And then?"):
                        messages = [{"role": "user", "content": question}]
                        body = Path(folder) / "body.json"
                        body.write_text(
                            json.dumps(
                                {"messages": messages, "user": f"user-{size}", "stream": True}, ensure_ascii=False
                            )
                        )
                        waits.append(_longest_wait_ms(service, body))
                    print(f"{size:>9} characters: {waits[0]:7.0f} ms; the turn after it {waits[1]:7.0f} ms", flush=True)
                    time.sleep(2)
                print(f"peak memory {_peak_mib(service.pid)} MiB")
    finally:
        upstream.terminate()


if __name__ == "__main__":
    main()
