"""A model swap with a real service: it warns, degrades, and after a rebuild beside it serves again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2

from tests.ledgers import ROOT
from tests.processes import service_process
from tests.projections.world import MODEL, OTHER_MODEL
from tests.upstream import CHAT_MODEL, ScriptedUpstream


def ask(client: httpx2.Client, question: str, conversation: str) -> Any:
    answer = client.post(
        "/v1/chat/completions",
        json={
            "model": CHAT_MODEL,
            "user": "ann",
            "messages": [{"role": "user", "content": question}],
            "metadata": {"conversation_id": conversation},
        },
    )
    answer.raise_for_status()
    return answer.json()


def test_a_running_service_serves_again_after_the_rebuild(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    env = {
        "STORAGE_DIR": str(tmp_path / "storage"),
        "LLM_BASE_URL": upstream.base_url,
        "LLM_MODEL": CHAT_MODEL,
        "EMB_BASE_URL": upstream.base_url,
        "EMB_MODEL": MODEL,
    }
    with service_process(env) as service, httpx2.Client(base_url=service.base_url, timeout=30) as client:
        ask(client, "The ferry to Lisbon leaves at nine.", "one")
        service.restart({"EMB_MODEL": OTHER_MODEL})
        before = ask(client, "When does the ferry leave?", "two")
        assert before["memory_status"]["retrieval"] == "ok"
        assert "Lisbon" in str(before["retrieved"])
        assert "python -m projections.rebuild" in before["memory_status"]["notice"]
        pid = service.pid
        rebuilt = subprocess.run(
            [sys.executable, "-m", "projections.rebuild"],
            cwd=ROOT,
            env=env | {"EMB_MODEL": OTHER_MODEL},
            capture_output=True,
            text=True,
            check=False,
        )
        assert rebuilt.returncode == 0, rebuilt.stderr
        again = ask(client, "When does the ferry leave?", "three")
        assert again["memory_status"]["retrieval"] == "ok"
        assert again["memory_status"]["notice"] is None
        assert "Lisbon" in str(again["retrieved"])
        assert service.pid == pid


def test_a_service_that_still_has_the_old_model_is_told_which_setting_to_change(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """The swap was made beside it: the same advice as before the swap would send people back."""
    env = {
        "STORAGE_DIR": str(tmp_path / "storage"),
        "LLM_BASE_URL": upstream.base_url,
        "LLM_MODEL": CHAT_MODEL,
        "EMB_BASE_URL": upstream.base_url,
        "EMB_MODEL": MODEL,
    }
    with service_process(env) as service, httpx2.Client(base_url=service.base_url, timeout=30) as client:
        ask(client, "The ferry to Lisbon leaves at nine.", "one")
        command = [sys.executable, "-m", "projections.rebuild"]
        subprocess.run(command, cwd=ROOT, env=env | {"EMB_MODEL": OTHER_MODEL}, capture_output=True, check=True)
        after = ask(client, "When does the ferry leave?", "two")
        assert "Lisbon" in str(after["retrieved"])
        notice = after["memory_status"]["notice"]
        assert f"set EMB_MODEL='{OTHER_MODEL}' and restart the service" in notice
        assert "run `python -m projections.rebuild`" not in notice
        service.restart()
        assert f"EMB_MODEL='{OTHER_MODEL}'" in ask(client, "And now?", "three")["memory_status"]["notice"]
        service.restart({"EMB_MODEL": OTHER_MODEL})
        assert ask(client, "And after that?", "four")["memory_status"]["notice"] is None
