"""What stands in the way of a start is one line that names it and the fix; never a traceback, never a second try."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.ports import port_trouble
from tests.processes import ROOT, free_port

ENDPOINTS = {
    "LLM_BASE_URL": "http://127.0.0.1:9/v1",
    "LLM_MODEL": "chat",
    "EMB_BASE_URL": "http://127.0.0.1:9/v1",
    "EMB_MODEL": "emb",
    "OPENAI_API_KEY": "sk-canary-4711",
}


def started(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m service`` until it ends by itself."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env={**kept, "PYTHONPATH": str(ROOT), **ENDPOINTS, **env},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_is_one_line(taken: int, tmp_path: Path, workers: str) -> None:
    result = started(tmp_path, "--port", str(taken), "--workers", workers)
    assert result.returncode == 1
    assert result.stderr == (f"openpersistentmemory: port {taken} on 127.0.0.1 is taken: choose another with --port\n")
    assert not (tmp_path / "storage").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "no.such.host.invalid"), "has no address of that name"),
        (("--host", "192.0.2.1"), "cannot be used"),
    ],
)
def test_a_host_that_is_not_this_machine_is_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    result = started(tmp_path, "--port", str(free_port()), *arguments)
    assert result.returncode == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("port", ["65536", "99999", "-1", "http"])
def test_what_is_no_port_is_named(tmp_path: Path, port: str) -> None:
    result = started(tmp_path, f"--port={port}")
    assert result.returncode == 2
    assert f"{port!r} is no number up to 65535" in result.stderr


def test_a_bad_setting_ends_workers_too(tmp_path: Path) -> None:
    result = started(tmp_path, "--port", str(free_port()), "--workers", "2", LLM_MODEL="", OPENAI_API_KEY="sk-can\nary")
    assert result.returncode == 1
    assert result.stderr.startswith("openpersistentmemory: ")
    assert "LLM_MODEL is not set" in result.stderr
    assert "OPENAI_API_KEY = (hidden)" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_port_that_is_free_is_no_trouble(taken: int) -> None:
    assert port_trouble("127.0.0.1", free_port()) is None
    assert port_trouble("localhost", free_port()) is None
    assert port_trouble("0.0.0.0", free_port()) is None  # noqa: S104 - nothing listens
    assert port_trouble("localhost", taken) == "is taken"


def folder_in_the_place_of(name: str) -> Callable[[Path], None]:
    return lambda storage: (storage / name).mkdir(parents=True)


def file_in_the_place_of_the_storage(storage: Path) -> None:
    storage.write_text("no folder")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (file_in_the_place_of_the_storage, "STORAGE_DIR = 'spoiled' cannot be used as a folder (File exists)"),
        (folder_in_the_place_of("ledger.lock"), "cannot be used as a folder (Is a directory: ledger.lock)"),
        (folder_in_the_place_of("background.lock"), "cannot be used as a folder (Is a directory: background.lock)"),
        (folder_in_the_place_of("ledger.sqlite3"), "ledger.sqlite3 cannot be opened as a ledger"),
        (folder_in_the_place_of("vectors.sqlite3"), "vectors.sqlite3 cannot be opened"),
    ],
)
def test_storage_that_cannot_be_used_is_named(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(tmp_path / "spoiled")
    result = started(tmp_path, "--port", str(free_port()), STORAGE_DIR="'spoiled'")
    assert result.returncode == 3
    [line] = [line for line in result.stderr.splitlines() if "openpersistentmemory" in line]
    assert said in line
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_storage_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    storage = tmp_path / "mine"
    storage.mkdir(mode=0o500)
    result = started(tmp_path, "--port", str(free_port()), STORAGE_DIR="mine")
    assert result.returncode == 3
    assert "STORAGE_DIR = 'mine' cannot be used as a folder (Permission denied: ledger.lock)" in result.stderr
    assert "Traceback" not in result.stderr
