"""A person forgets a memory or corrects its summary, wherever the page shows one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from streamlit.testing.v1 import AppTest

from frontend.ui_text import UI_TEXT
from tests.frontend.chat_browser import ChatBrowser, chromium, required_chromium, running_page
from tests.frontend.conftest import OpenPage
from tests.frontend.scripted_backend import REQUEST_ID, ScriptedBackend, some_history


@pytest.fixture(params=["en", "zh"])
def page(request: pytest.FixtureRequest, open_page: OpenPage, backend: ScriptedBackend) -> AppTest:
    """A conversation of two exchanges, each answered from a replayed and a summarised memory."""
    backend.retrieved = some_history()
    for number in (1, 2):
        backend.remember("ada", "lunch", f"Question {number}?", f"Answer {number}.")
    return open_page(user="ada", conversation="lunch", lang=request.param)


def labels(page: AppTest, key: str) -> list[str]:
    return [button.label for button in page.main.button if str(button.key).startswith(key)]


def texts(page: AppTest) -> list[str]:
    return [str(text.value) for text in page.main.text]


def test_every_memory_has_both_actions_in_the_readers_language(page: AppTest) -> None:
    words = UI_TEXT[str(page.query_params["lang"])]
    assert labels(page, "memory_forget_") == [words["memory_forget"]] * 6
    assert labels(page, "memory_edit_") == [words["memory_edit"]] * 6


def test_an_exchange_is_forgotten_after_a_question(page: AppTest, backend: ScriptedBackend) -> None:
    place = "lunch-1_lunch-1"
    page.button(key=f"memory_forget_{place}").click().run()
    assert backend.forgotten == []
    page.button(key=f"memory_cancel_{place}").click().run()
    assert labels(page, "memory_yes_") == []
    page.button(key=f"memory_forget_{place}").click().run()
    page.button(key=f"memory_yes_{place}").click().run()
    assert backend.forgotten == [("ada", "lunch-1")]
    assert "Question 1?" not in texts(page)
    assert "Question 2?" in texts(page)
    assert not page.exception


def test_a_memory_in_the_history_used_is_forgotten(page: AppTest, backend: ScriptedBackend) -> None:
    page.button(key="memory_forget_lunch-2_m-1").click().run()
    page.button(key="memory_yes_lunch-2_m-1").click().run()
    assert backend.forgotten == [("ada", "m-1")]
    assert "I am allergic to peanuts." not in texts(page)


def test_a_summary_is_corrected(page: AppTest, backend: ScriptedBackend) -> None:
    backend.summaries["m-2"] = "Ada plans a trip to Kyoto."
    page.button(key="memory_edit_lunch-1_m-2").click().run()
    assert page.text_area(key="memory_summary").value == "Ada plans a trip to Kyoto."
    page.text_area(key="memory_summary").set_value("Ada has been to Kyoto.")
    page.button(key="memory_yes_lunch-1_m-2").click().run()
    assert backend.summaries["m-2"] == "Ada has been to Kyoto."
    assert texts(page).count("Ada has been to Kyoto.") == 2
    assert len(page.text_area) == 0


@pytest.mark.parametrize("action", ["memory_forget", "memory_edit"])
def test_a_failure_is_told_where_it_happened(page: AppTest, backend: ScriptedBackend, action: str) -> None:
    backend.fail_status, backend.fail_reads = 503, True
    page.button(key=f"{action}_lunch-1_m-2").click().run()
    if action == "memory_forget":
        page.button(key="memory_yes_lunch-1_m-2").click().run()
    assert len(page.main.error) == 1
    assert not page.exception
    assert REQUEST_ID not in texts(page)


@pytest.fixture
def chat(backend: ScriptedBackend, tmp_path: Path) -> Iterator[ChatBrowser]:
    path = required_chromium()
    backend.retrieved = some_history()
    with chromium(path) as browser, running_page(backend.url, tmp_path / "streamlit.log") as url:
        yield ChatBrowser(browser.new_page(), f"{url}/?user=ada&conversation=lunch&lang=en")


@pytest.mark.browser
def test_in_a_browser(chat: ChatBrowser, backend: ScriptedBackend) -> None:
    chat.ask("Where shall we eat?")
    answer = chat.wait_for_answer(0)
    chat.unfold(answer.get_by_text("History used"))
    summarised = answer.get_by_text("Ada plans a trip to Kyoto.").locator("xpath=ancestor::*[.//button][1]")
    summarised.get_by_role("button", name="Edit summary").click()
    box = chat.page.get_by_role("textbox", name="What to remember")
    expect(box).to_be_visible()
    box.fill("Ada has been to Kyoto.")
    chat.button("Save").click()
    expect(box).to_have_count(0)
    # The page was read anew, and what was unfolded stays so.
    expect(answer.get_by_text("Ada has been to Kyoto.")).to_be_visible()
    chat.button("Forget").first.click()
    expect(chat.page.get_by_text("Forget this exchange?")).to_be_visible()
    chat.button("Forget it").click()
    expect(chat.questions).to_have_count(0)
    assert backend.forgotten == [("ada", "lunch-1")]
