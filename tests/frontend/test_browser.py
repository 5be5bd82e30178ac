"""The page in a real Chromium: what only a browser shows, above all Stop in the middle of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.frontend.chat_browser import ChatBrowser, chromium, required_chromium, running_page
from tests.frontend.scripted_backend import ScriptedBackend, some_history

pytestmark = pytest.mark.browser

WAIT_S = 60.0
ANSWER = "Peanuts, you told me in November."


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(required_chromium()) as started:
        yield started


@pytest.fixture
def chat(backend: ScriptedBackend, browser: Browser, tmp_path: Path) -> Iterator[ChatBrowser]:
    context = browser.new_context(locale="en-GB", timezone_id="Europe/Berlin")
    with running_page(backend.url, tmp_path / "streamlit.log") as url:
        yield ChatBrowser(context.new_page(), f"{url}/?user=ada")
        context.close()


def test_a_person_chats_stops_looks_back_and_changes_language(chat: ChatBrowser, backend: ScriptedBackend) -> None:
    backend.retrieved = some_history()
    # A suggestion is put in the box, to be edited, and sent from there.
    chat.button("What do you know about me?").click()
    expect(chat.box).to_have_value("What do you know about me?")
    chat.box.press("Enter")
    first = chat.wait_for_answer(0)
    expect(first).to_contain_text(ANSWER)
    chat.unfold(first.get_by_text("History used"))
    # On the reader's clock, an hour ahead of the service's UTC.
    expect(first).to_contain_text("2025-11-03 14:05 · similarity 0.83 · turn 3 · “november”")
    expect(first).to_contain_text("Ada plans a trip to Kyoto.")

    # A knob turned in the middle of an answer does not cut it off; Stop does, and what had come stays.
    backend.hold_after = 2
    chat.ask("Tell me\n  more")
    assert backend.held.wait(WAIT_S)
    expect(chat.answers.nth(1)).to_contain_text("Peanuts, you told me")
    chat.unfold(chat.page.get_by_text("Memory settings"))
    rerank = chat.page.get_by_role("switch", name="Rerank")
    chat.page.get_by_text("Rerank").click()
    expect(rerank).not_to_be_checked()
    chat.unfold(chat.page.get_by_text("Answer settings"))
    expect(chat.button("Stop")).to_be_visible()
    assert not backend.hung_up.is_set()
    chat.button("Stop").click()
    expect(chat.answers.nth(1)).to_contain_text("Stopped. What was written so far is kept.")
    expect(chat.answers.nth(1)).to_contain_text("Peanuts, you told me")
    assert backend.hung_up.wait(WAIT_S), "the service did not see the hang-up"
    expect(chat.questions.nth(1)).to_have_text("Tell me\n  more")

    # The knob counts from the next message on.
    backend.hold_after = None
    chat.ask("And again")
    expect(chat.wait_for_answer(2)).to_contain_text(ANSWER)
    assert [sent["metadata"]["use_rerank"] for sent in backend.requests] == [True, True, False]
    assert {sent["metadata"]["timezone"] for sent in backend.requests} == {"Europe/Berlin"}

    # A reload keeps the place, and shows what the ledger has.
    chat.page.reload()
    expect(chat.questions).to_have_text(["What do you know about me?", "And again"])

    chat.button("New chat").click()
    expect(chat.answers).to_have_count(0)
    chat.ask("A second conversation")
    chat.wait_for_answer(0)
    chat.page.get_by_test_id("stSidebar").get_by_role("button", name="What do you know about me?").click()
    expect(chat.questions).to_have_text(["What do you know about me?", "And again"])

    chat.page.get_by_test_id("stSelectbox").last.click()
    chat.page.get_by_role("option", name="中文").click()
    expect(chat.button("新对话")).to_be_visible()
    expect(chat.answers.first).to_contain_text(ANSWER)


def test_sending_from_the_middle_of_a_long_conversation_shows_the_answer(
    chat: ChatBrowser, backend: ScriptedBackend
) -> None:
    for number in range(30):
        backend.remember("ada", "long", f"Question {number}", "Yes.\n\nIndeed.")
    chat.page.goto(f"{chat.page.url.partition('?')[0]}?user=ada&conversation=long")
    expect(chat.questions).to_have_count(30)
    chat.questions.first.scroll_into_view_if_needed()
    expect(chat.questions.first).to_be_in_viewport()
    for number in (30, 31):
        chat.ask(f"Question {number}")
        expect(chat.questions.nth(number)).to_be_in_viewport()
        expect(chat.wait_for_answer(number)).to_be_in_viewport()
        chat.questions.first.scroll_into_view_if_needed()


def test_leaving_the_page_hangs_up(chat: ChatBrowser, backend: ScriptedBackend) -> None:
    backend.hold_after = 1
    chat.ask("Hello")
    assert backend.held.wait(WAIT_S)
    chat.page.close()
    # Streamlit keeps a session for a while, in case the tab comes back; then it ends the script.
    assert backend.hung_up.wait(WAIT_S * 5)
