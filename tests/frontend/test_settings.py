"""The page is configured by the environment alone, and says in one line what is malformed."""

from __future__ import annotations

import pytest

from frontend.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://127.0.0.1:9000/v1", "http://127.0.0.1:9000"),
        (" https://chat.example/memory/v1/ ", "https://chat.example/memory"),
        ("http://[::1]:9000/", "http://[::1]:9000"),
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
