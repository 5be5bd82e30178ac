"""A setting that is missing or malformed is named in one line; a secret is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from domain.errors import SettingsError
from domain.settings import StorageSettings, as_meant, load_settings


class ExampleSettings(StorageSettings):
    llm_base_url: str = Field(description="address of the chat endpoint")
    prompt_budget_tokens: int = Field(default=0, ge=0, description="tokens of a prompt, 0 = ask the server")
    some_api_key: int = 0
    hf_token: int = 0
    db_password: int = 0


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ExampleSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def complaint() -> str:
    with pytest.raises(SettingsError) as raised:
        load_settings(ExampleSettings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_defaults_and_paths() -> None:
    settings = load_settings(StorageSettings)
    assert settings.ledger_path == Path("storage/ledger.sqlite3")
    assert settings.users_dir == Path("storage/users")


def test_the_environment_comes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("STORAGE_DIR=from-file\nLLM_BASE_URL=http://file\nUNRELATED=1\n")
    monkeypatch.setenv("STORAGE_DIR", "from-environment")
    settings = load_settings(ExampleSettings)
    assert (settings.storage_dir, settings.llm_base_url) == (Path("from-environment"), "http://file")


def test_a_missing_setting_is_named_with_its_description() -> None:
    assert complaint() == (
        "LLM_BASE_URL is not set (address of the chat endpoint): set it in the environment or in .env"
    )


def test_an_empty_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_BASE_URL", "")
    monkeypatch.setenv("STORAGE_DIR", "")
    assert "LLM_BASE_URL is not set" in complaint()
    monkeypatch.setenv("LLM_BASE_URL", "http://x")
    assert load_settings(ExampleSettings).storage_dir == Path("storage")


@pytest.mark.parametrize("value", ["many", "-1", "4\n096", "9" * 5000 + "x"])
def test_a_malformed_value_is_shown_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LLM_BASE_URL", "http://x")
    monkeypatch.setenv("PROMPT_BUDGET_TOKENS", value)
    line = complaint()
    assert line.startswith(f"PROMPT_BUDGET_TOKENS = {value[:3]!r}"[:-2])
    assert "tokens of a prompt" in line
    assert len(line) < 300


def test_each_of_several_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPT_BUDGET_TOKENS", "many")
    assert ["LLM_BASE_URL" in complaint(), "PROMPT_BUDGET_TOKENS" in complaint()] == [True, True]


@pytest.mark.parametrize("name", ["SOME_API_KEY", "HF_TOKEN", "DB_PASSWORD"])
def test_a_secret_is_hidden(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("LLM_BASE_URL", "http://x")
    monkeypatch.setenv(name, "hunter2")
    line = complaint()
    assert line.startswith(f"{name} = (hidden)")
    assert "hunter2" not in line


def test_the_cause_does_not_carry_the_value_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2")
    with pytest.raises(SettingsError) as raised:
        load_settings(ExampleSettings)
    assert raised.value.__suppress_context__


def test_an_override_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_DIR", "from-environment")
    assert load_settings(StorageSettings, storage_dir=Path("given")).storage_dir == Path("given")


@pytest.mark.parametrize("written", ["~/memory", "'~/memory'", "$HOME/memory", "${HOME}/memory"])
def test_a_folder_is_read_as_a_shell_would(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STORAGE_DIR", written)
    assert load_settings(StorageSettings).storage_dir == tmp_path / "home" / "memory"
    monkeypatch.delenv("STORAGE_DIR")
    Path(".env").write_text(f"STORAGE_DIR={written}\n")
    assert load_settings(StorageSettings).storage_dir == tmp_path / "home" / "memory"


def test_a_folder_of_an_unknown_home_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_BASE_URL", "http://x")
    monkeypatch.setenv("STORAGE_DIR", "~nobody-of-that-name/memory")
    assert "there is no such home folder" in complaint()


def test_a_ledger_that_an_earlier_version_wrote_to_a_folder_called_tilde_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("~/memory").mkdir(parents=True)
    monkeypatch.setenv("LLM_BASE_URL", "http://x")
    monkeypatch.setenv("STORAGE_DIR", "~/memory")
    assert "a folder of that very name is here too" in complaint()


LINES = "\n# caf\u00e9\nSTORAGE_DIR=from-file\nLLM_BASE_URL='http://x'\n"


@pytest.mark.parametrize(
    "encoded",
    [
        LINES.encode(),
        LINES.encode("utf-8-sig"),
        LINES.encode("utf-16"),
        b"\xfe\xff" + LINES.encode("utf-16-be"),
        LINES.encode("utf-16-le"),
        LINES.encode("utf-16-be"),
        LINES.replace("\n", "\r\n").encode(),
        LINES.replace("\n", "\r\n").encode("utf-16"),
        LINES.strip().removeprefix("# caf\u00e9\n").encode("utf-8-sig"),
    ],
)
def test_a_dotenv_file_is_read_in_any_unicode_encoding(encoded: bytes) -> None:
    Path(".env").write_bytes(encoded)
    found = load_settings(ExampleSettings)
    assert (found.storage_dir, found.llm_base_url) == (Path("from-file"), "http://x")


@pytest.mark.parametrize("encoded", [LINES.encode("latin-1"), LINES.encode("utf-16") + b"x"])
def test_a_dotenv_file_in_another_encoding_is_named(encoded: bytes) -> None:
    Path(".env").write_bytes(encoded)
    assert complaint().startswith(".env is not text in UTF-8 (line ")


def test_a_folder_called_dotenv_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").mkdir()
    monkeypatch.setenv("LLM_BASE_URL", "http://x")
    assert load_settings(ExampleSettings).llm_base_url == "http://x"


@given(text=st.text(max_size=30))
def test_what_is_meant_has_nothing_around_it(text: str) -> None:
    meant = as_meant(text)
    assert meant in text
    assert as_meant(meant) == as_meant(f" '{meant}' ") or set("'\u2018\u2019\u201c\u201d\u201e\"`") & set(meant)
