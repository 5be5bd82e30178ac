"""A setting that is missing or malformed is one clear line on stderr and exit status 1; ``.env`` is as good."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from domain.errors import SettingsError
from domain.settings import load_settings
from service.settings import ServiceSettings
from tests.processes import ROOT, free_port

USUAL = {
    "LLM_BASE_URL": "http://127.0.0.1:9/v1",
    "LLM_MODEL": "chat",
    "EMB_BASE_URL": "http://127.0.0.1:9/v1",
    "EMB_MODEL": "emb",
    "OPENAI_API_KEY": "sk-canary-4711",
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's, neither in the environment nor in a file."""
    for name in ServiceSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def complaint(monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str]) -> str:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        load_settings(ServiceSettings)
    return str(raised.value)


@pytest.mark.parametrize("name", ["LLM_BASE_URL", "LLM_MODEL", "EMB_BASE_URL", "EMB_MODEL"])
@pytest.mark.parametrize("given", [None, ""])
def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, given: str | None) -> None:
    env = {key: value for key, value in USUAL.items() if key != name} | ({name: given} if given is not None else {})
    said = complaint(monkeypatch, env)
    assert said.startswith(f"{name} is not set")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLM_BASE_URL", "localhost:8001"),
        ("EMB_BASE_URL", "ftp://x"),
        ("EMBEDDING_DIMS", "many"),
        ("EMBEDDING_DIMS", "-1"),
        ("EMB_TIMEOUT_S", "0"),
        ("LLM_TIMEOUT_S", "soon"),
        ("LLM_EXTRA_BODY", "[1]"),
        ("GATE", "maybe"),
        ("GATE_SCORE_MIN", "2"),
        ("GATE_REASONS", "perhaps"),
        ("PROMPT_BUDGET_TOKENS", "12"),
        ("SUMMARY_ATTEMPTS", "0"),
        ("REQUEST_BYTES_MAX", "1"),
        ("INDEX_STORAGE", "fp8"),
        ("USE_RERANK_DEFAULT", "2"),
    ],
)
def test_a_malformed_setting_is_named_with_its_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    said = complaint(monkeypatch, {**USUAL, name: value})
    assert said.startswith(f"{name} = ")
    assert value.strip("[]") in said
    assert "\n" not in said
    assert "sk-canary" not in said


def test_all_wrong_settings_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = complaint(monkeypatch, {"LLM_MODEL": "m", "GATE": "maybe"})
    assert all(name in said for name in ("LLM_BASE_URL", "EMB_BASE_URL", "EMB_MODEL", "GATE"))


@pytest.mark.parametrize("owner", ["", " ", "a\\nb"])
def test_a_key_that_stands_for_no_user_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    said = complaint(monkeypatch, {**USUAL, "API_KEYS": f'{{"sk-canary-good": "ann", "sk-canary-bad": "{owner}"}}'})
    assert said.startswith("API_KEYS")
    assert "a key's user" in said
    assert "\n" not in said
    assert "sk-canary" not in said


def started(env: Mapping[str, str], cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "uvicorn", "service.app:app", "--app-dir", str(ROOT), "--port", str(free_port())]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.Popen(
        command, env=kept | dict(env), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_process_ends_with_one_line_and_status_1(tmp_path: Path) -> None:
    cases = {
        "LLM_BASE_URL is not set": {"LLM_BASE_URL": ""},
        "LLM_EXTRA_BODY": {"LLM_EXTRA_BODY": "{oops"},
        "PROMPTS_DIR = 'absent': no such folder": {"PROMPTS_DIR": "absent"},
    }
    processes = {said: started({**USUAL, **change}, tmp_path) for said, change in cases.items()}
    for said, process in processes.items():
        out, err = process.communicate(timeout=60)
        assert said in err
        assert len(err.strip().splitlines()) == 1
        assert process.returncode == 1
        assert "sk-canary" not in out + err


def test_unusable_storage_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("I am no folder")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ledger.sqlite3").write_bytes(b"I am no database, whatever my name says. " * 100)
    cases = {"'file' cannot be used as a folder": "file", "ledger.sqlite3 cannot be opened as a ledger": "other"}
    processes = {said: started({**USUAL, "STORAGE_DIR": folder}, tmp_path) for said, folder in cases.items()}
    for said, process in processes.items():
        _, err = process.communicate(timeout=60)
        assert "openpersistentmemory: " in err
        assert said in err
        assert "Traceback" not in err
        assert process.returncode not in {0, None}


def test_a_dotenv_file_is_as_good_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {**USUAL, "LLM_MODEL": "overridden", "EMB_BASE_URL": "http://127.0.0.1:9/v1/", "STORAGE_DIR": "here"}
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    Path(".env").write_text(f"# settings\n{text}UNRELATED=1\nGATE=\n")
    monkeypatch.setenv("LLM_MODEL", "chosen")
    settings = load_settings(ServiceSettings)
    assert (settings.llm_model, settings.emb_model) == ("chosen", "emb")
    assert settings.emb_base_url == "http://127.0.0.1:9/v1"
    assert settings.storage_dir == Path("here")
    assert settings.openai_api_key.get_secret_value() == "sk-canary-4711"
    assert settings.gate == "llm"  # an empty value counts as not set
