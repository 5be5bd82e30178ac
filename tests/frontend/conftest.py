"""Fixtures of the page's tests: a scripted backend that is served, and the page before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.frontend.scripted_backend import ScriptedBackend, serve

PAGE = Path(__file__).resolve().parents[2] / "frontend" / "page.py"
# For a run of the script that hangs; a machine under load may be slow, so it is far above what a run takes.
RUN_TIMEOUT_S = 60

OpenPage = Callable[..., AppTest]


@pytest.fixture
def backend() -> Iterator[ScriptedBackend]:
    """A served backend; what it does next is set on its fields."""
    with serve(ScriptedBackend()) as served:
        yield served


@pytest.fixture
def open_page(backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch) -> OpenPage:
    """Open the page at an address with these query parameters, as a browser would after typing it."""
    monkeypatch.setenv("BACKEND_URL", backend.url)

    def opened(**query: str) -> AppTest:
        page = AppTest.from_file(str(PAGE), default_timeout=RUN_TIMEOUT_S)
        for name, value in query.items():
            page.query_params[name] = value
        return page.run()

    return opened
