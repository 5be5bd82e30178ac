"""The page is configured by the environment alone, and says in one line what is malformed."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontend.backend import Backend
from frontend.backend_errors import BackendUnreachableError
from frontend.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://127.0.0.1:9000/v1", "http://127.0.0.1:9000"),
        (" https://chat.example/memory/v1/ ", "https://chat.example/memory"),
        ("http://[::1]:9000/", "http://[::1]:9000"),
        ("'http://127.0.0.1:9000'", "http://127.0.0.1:9000"),
        ("", "http://127.0.0.1:9000"),
    ],
)
def test_the_address_is_taken_with_or_without_v1(monkeypatch: pytest.MonkeyPatch, given: str, root: str) -> None:
    monkeypatch.setenv("BACKEND_URL", given)
    assert load_settings().backend_url == root


@pytest.mark.parametrize("given", ["127.0.0.1:9000", "ftp://host", "http://", "http://host:port", "http://host:99999"])
def test_a_malformed_address_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("BACKEND_URL", given)
    with pytest.raises(SettingsError, match=r"^BACKEND_URL is malformed: .*BACKEND_URL=http://127") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_the_shown_address_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND_URL", "http://me:hunter2@chat.example:9000/v1")
    settings = load_settings()
    assert settings.address == "http://chat.example:9000"
    assert settings.backend_url == "http://me:hunter2@chat.example:9000"


@pytest.mark.parametrize(
    ("url", "loopback"), [("http://localhost:1", True), ("http://[::1]", True), ("http://10.0.0.1", False)]
)
def test_loopback_is_known_so_that_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch, url: str, loopback: bool) -> None:
    monkeypatch.setenv("BACKEND_URL", url)
    assert load_settings().is_loopback is loopback


@pytest.mark.parametrize("given", ["sk-canary\n", " sk-canary", '"sk-canary"'])
def test_blanks_and_quotes_around_the_key_do_not_belong_to_it(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("BACKEND_API_KEY", given)
    key = load_settings().backend_api_key
    assert key is not None
    assert key.get_secret_value() == "sk-canary"


@pytest.mark.parametrize("given", ["sk-can\nary", "sk-can\u201cary", "sk-can\u00e4ry"])
def test_a_key_that_cannot_be_sent_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("BACKEND_API_KEY", given)
    with pytest.raises(SettingsError, match=r"^BACKEND_API_KEY is malformed: copy the key again") as caught:
        load_settings()
    assert "sk-can" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_the_file_may_be_in_any_unicode_encoding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BACKEND_URL", raising=False)
    Path(".env").write_bytes("BACKEND_URL=http://chat.example\n# caf\u00e9\n".encode(encoding))
    assert load_settings().backend_url == "http://chat.example"


def test_a_file_in_another_encoding_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_bytes("# caf\u00e9\n".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"^\.env cannot be read"):
        load_settings()


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_said_and_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("BACKEND_URL", "http://chat.invalid:9000")
    with pytest.raises(BackendUnreachableError):
        Backend(load_settings()).model()
    assert "such as a SOCKS one, is not supported" in caplog.text
