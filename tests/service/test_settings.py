"""A setting that is missing or malformed is one clear line on stderr and exit status 1; ``.env`` is as good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def loaded(monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str]) -> ServiceSettings:
    for name, value in {**USUAL, **env}.items():
        monkeypatch.setenv(name, value)
    return load_settings(ServiceSettings)


@pytest.mark.parametrize(
    "around", ["{}\n", " {} ", '"{}"', " '{}'\r\n", "\u201c{}\u201d", "\ufeff{}", "\u00a0{}\u200b"]
)
def test_blanks_and_quotes_around_a_value_do_not_belong_to_it(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    meant = {
        **USUAL,
        "LLM_BASE_URL": "http://[::1]:8001/v1",
        "RERANK_API_KEY": "rerank-key",
        "GATE": "score",
        "EMBEDDING_DIMS": "256",
        "API_KEYS": '{"key": "ann"}',
        "ALLOWED_HOSTS": "memory.home",
        "LLM_EXTRA_BODY": "{}",
        "STORAGE_DIR": "here",
    }
    written = {name: around.format(value) for name, value in meant.items()}
    assert loaded(monkeypatch, written) == loaded(monkeypatch, meant)


@pytest.mark.parametrize("written", ["", " ", '""', "'  '", "\ufeff"])
def test_what_holds_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    assert complaint(monkeypatch, {**USUAL, "EMB_MODEL": written}).startswith("EMB_MODEL is not set")


def test_the_blank_after_a_prefix_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = loaded(monkeypatch, {"EMB_QUERY_PREFIX": "'query: '", "EMB_PASSAGE_PREFIX": "passage: "})
    assert (found.query_prefix, found.passage_prefix) == ("query: ", "passage: ")


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "RERANK_API_KEY"])
def test_the_word_before_a_key_does_not_belong_to_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    found = loaded(monkeypatch, {name: "Bearer sk-canary-4711"})
    key = getattr(found, name.lower())
    assert key.get_secret_value() == "sk-canary-4711"


@pytest.mark.parametrize(
    ("char", "kind"),
    [
        ("\n", "a line break"),
        ("\r\n", "a line break"),
        ("\u2028", "a line break"),
        ("\u201c", "a curly quote"),
        ("\u2019", "a curly quote"),
        ("\u2014", "a long dash"),
        ("\t", "an invisible character (U+0009)"),
        ("\u00a0", "an invisible character (U+00A0)"),
        ("\u200b", "an invisible character (U+200B)"),
        ("\u043a", "no Latin letter"),
        ("\u2026", "no Latin letter"),
        ("\U0001f511", "no Latin letter"),
    ],
)
@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "RERANK_API_KEY", "API_KEYS"])
def test_a_key_that_cannot_be_sent_is_named_by_its_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, char: str, kind: str
) -> None:
    key = f"sk-canary{char}4711"
    said = complaint(monkeypatch, {**USUAL, name: json.dumps({key: "ann"}) if name == "API_KEYS" else key})
    assert said.startswith(f"{name} = (hidden)")
    assert f"character 10 of a key is {kind}" in said
    assert said.isprintable()
    assert "canary" not in said
    assert "4711" not in said


def test_the_keys_of_callers_are_read_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    found = loaded(
        monkeypatch, {"API_KEYS": "'{\u201c sk-a \u201d: \u201cann\u201d, \u201cBearer sk-b\u201d: \u201c*\u201d}'"}
    )
    assert {key.get_secret_value(): owner for key, owner in found.api_keys.items()} == {"sk-a": "ann", "sk-b": "*"}


@pytest.mark.parametrize(
    "written", ["sk-canary", "sk-canary:ann", "{sk-canary: ann}", "['sk-canary']", '{"sk-canary": 1}']
)
def test_keys_in_another_shape_are_told_the_right_one(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    said = complaint(monkeypatch, {**USUAL, "API_KEYS": written})
    assert said.startswith("API_KEYS = (hidden) (JSON object from API key to user id")
    assert "canary" not in said


@pytest.mark.parametrize("name", ["LLM_BASE_URL", "EMB_BASE_URL", "RERANK_BASE_URL"])
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://localhost:8001/v1/", "http://localhost:8001/v1"),
        ("http://localhost:8001//v1//", "http://localhost:8001/v1"),
        ("http://localhost:8001/v1/chat/completions", "http://localhost:8001/v1"),
        ("http://localhost:8001/v1/chat/completions/", "http://localhost:8001/v1"),
        ("http://localhost:8001/v1/embeddings", "http://localhost:8001/v1"),
        ("http://localhost:8001/v1/completions", "http://localhost:8001/v1"),
        ("HTTPS://api.example/openai/v1 ", "https://api.example/openai/v1"),
        ("http://[::1]:8001/v1", "http://[::1]:8001/v1"),
        ("http://[fe80::1]/v1/embeddings", "http://[fe80::1]/v1"),
        ("https://some.example/models", "https://some.example/models"),
        ("https://user:pass@some.example/v1", "https://user:pass@some.example/v1"),
        ("http://localhost:8001", "http://localhost:8001"),
    ],
)
def test_an_address_is_read_as_it_is_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, written: str, meant: str
) -> None:
    rerank = {"RERANK_BASE_URL": "http://127.0.0.1:9", "RERANK_MODEL": "m"}
    found = loaded(monkeypatch, rerank | {name: written})
    assert getattr(found, name.lower()) == meant


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("localhost:8001/v1", "such as http://localhost:8001/v1"),
        ("[::1]:8001", "such as http://[::1]:8001"),
        ("http:/localhost", "give an http:// or https:// address"),
        ("http://", "give an http:// or https:// address"),
        ("http://local host/v1", "a blank"),
        ("http://localhost/v1 https://other/v1", "a blank or a second address"),
        ("http://https://localhost/v1", "a second address"),
        ("http://::1:8001/v1", "put the IPv6 address into brackets"),
        ("http://[::1/v1", "cannot be read as an address"),
        ("http://localhost:80o1/v1", "no port from 1 to 65535"),
        ("http://localhost:99999/v1", "no port from 1 to 65535"),
        ("http://localhost:0/v1", "no port from 1 to 65535"),
        ("http://:8001/v1", "no host"),
        ("http://user:canary@/v1", "no host"),
        ("https://some.example/v1?key=canary", "leave that out"),
        ("https://user:canary@some.example/v1#x", "leave that out"),
        ("ftp://user:canary@some.example/v1", "give an http:// or https:// address"),
        ("user:canary@some.example/v1", "give an http:// or https:// address"),
        ("ftp://user:can@ary/canary@some.example/v1", "give an http:// or https:// address"),
        ("http://user:canary@ho st:x/", "a blank"),
        ("http://user:canary@ho\u2100st/v1", "cannot be read as an address"),
        ("http://user:canary\uff20host:99999/v1", "cannot be read as an address"),
        ("http://user:canary@[::1/v1", "cannot be read as an address"),
        ("http://user:canary/v1", "no port from 1 to 65535"),
        ("http://some.example/v1#canary", "leave that out"),
    ],
)
@pytest.mark.parametrize("name", ["LLM_BASE_URL", "EMB_BASE_URL", "RERANK_BASE_URL"])
def test_an_address_that_is_none_is_named_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, name: str, written: str, said: str
) -> None:
    complained = complaint(monkeypatch, {**USUAL, name: written})
    assert complained.startswith(f"{name} = ")
    assert said in complained
    assert "canary" not in complained
    assert complained.isprintable()


SLIPS = st.sampled_from(["", " ", "@", "/", ":", "#", "?", "[", "]", "://", "\u2100", "\uff20", "\u200b", "%", "x"])
SCHEMES = st.sampled_from(["http://", "https://", "ftp://", "http:/", "http//", "//", "", "http://http://", "HTTP://"])


def complaint_about(address: str) -> str:
    given = {name.lower(): value for name, value in USUAL.items()} | {"llm_base_url": address}
    try:
        load_settings(ServiceSettings, **given)
    except SettingsError as error:
        return str(error)
    return ""


@given(scheme=SCHEMES, slips=st.tuples(*[SLIPS] * 5), port=st.sampled_from(["", ":80", ":x", ":0", ":99999", ":"]))
def test_no_slip_in_an_address_shows_its_password(scheme: str, slips: tuple[str, ...], port: str) -> None:
    before, inside, after, host, end = slips
    written = f"{scheme}{before}me:canary{inside}canary{after}@{host}some.example{port}/v1{end}"
    assert "canary" not in complaint_about(written)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('["Memory.home", "localhost"]', ["memory.home", "localhost"]),
        ("memory.home,localhost", ["memory.home", "localhost"]),
        ("memory.home, localhost ;", ["memory.home", "localhost"]),
        ("'memory.home','localhost'", ["memory.home", "localhost"]),
        ("memory.home:9000", ["memory.home"]),
        ("http://memory.home:9000/", ["memory.home"]),
        ('["memory.home:9000", "[::1]:9000", "::1"]', ["memory.home", "[::1]", "[::1]"]),
        ("[::1],10.0.0.2:80", ["[::1]", "10.0.0.2"]),
        ("[::1]", ["[::1]"]),
        ('"memory.home"', ["memory.home"]),
        ("*", ["*"]),
    ],
)
def test_host_names_may_be_written_in_any_of_these_ways(
    monkeypatch: pytest.MonkeyPatch, written: str, meant: list[str]
) -> None:
    assert loaded(monkeypatch, {"ALLOWED_HOSTS": written}).allowed_hosts == meant


@pytest.mark.parametrize("written", ["*.home", "['memory.home']", '{"memory.home": 1}', "[1]", "a b@c"])
def test_what_is_no_host_name_is_told_a_list(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    said = complaint(monkeypatch, {**USUAL, "ALLOWED_HOSTS": written})
    assert said.startswith("ALLOWED_HOSTS = ")


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
        "OPENAI_API_KEY = (hidden)": {"OPENAI_API_KEY": "sk-canary\n4711"},
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
