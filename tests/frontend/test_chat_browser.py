"""Tests that need a browser skip without one, but fail in CI, where a skip would hide that nobody saw the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.frontend.chat_browser import NO_CHROMIUM, chromium_path, required_chromium


@pytest.fixture
def no_chromium(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide every Chromium of this machine: the named one, the system's and playwright's."""
    monkeypatch.delenv("CHROMIUM_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    assert chromium_path() is None


@pytest.mark.usefixtures("no_chromium")
def test_in_ci_a_missing_browser_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception) as failed:
        required_chromium()
    assert str(failed.value) == NO_CHROMIUM


@pytest.mark.usefixtures("no_chromium")
@pytest.mark.parametrize("ci", [None, "", "false"])
def test_on_a_developers_machine_it_is_a_skip(monkeypatch: pytest.MonkeyPatch, ci: str | None) -> None:
    if ci is None:
        monkeypatch.delenv("CI", raising=False)
    else:
        monkeypatch.setenv("CI", ci)
    with pytest.raises(pytest.skip.Exception) as skipped:
        required_chromium()
    assert str(skipped.value) == NO_CHROMIUM


def test_a_browser_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("CHROMIUM_PATH", "/opt/chromium/chrome")
    assert required_chromium() == "/opt/chromium/chrome"
