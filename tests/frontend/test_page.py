"""The page as a person meets it, run by Streamlit's own test runner before a real HTTP server."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from frontend.thread_view import SUGGESTIONS
from frontend.ui_text import UI_TEXT
from tests.frontend.conftest import OpenPage
from tests.frontend.scripted_backend import MODEL, REQUEST_ID, ScriptedBackend, neighbors_of_november, some_history

DEFAULTS = {
    "recent_turns": 6,
    "candidate_n": 60,
    "retrieve_k": 5,
    "neighbor_turns": 1,
    "retrieval": "hybrid",
    "gate_keep_max": 30,
    "use_gate": True,
    "use_rerank": True,
}
ANSWER = "Peanuts, you told me in November."


def send(page: AppTest, text: str) -> AppTest:
    return page.chat_input(key="message").set_value(text).run()


def shown(page: AppTest) -> str:
    """All text in the main part of the page."""
    parts = [*page.main.markdown, *page.main.text, *page.main.caption, *page.main.error, *page.main.warning]
    parts += [*page.main.title]
    return "\n".join([str(part.value) for part in parts] + [expander.label for expander in page.main.expander])


def messages(page: AppTest) -> list[tuple[str, str]]:
    """Who said what, in order: the first text of each message."""
    found = []
    for message in page.chat_message:
        texts = [*message.text] if message.name == "user" else [*message.markdown]
        found.append((message.name, str(texts[0].value) if texts else ""))
    return found


def keys(page: AppTest) -> set[str]:
    return {button.key for button in page.button if button.key}


def test_an_empty_chat_says_what_it_is_for(open_page: OpenPage) -> None:
    page = open_page()
    assert not page.exception
    assert [title.value for title in page.main.title] == [UI_TEXT["en"]["empty_title"]]
    assert set(SUGGESTIONS) <= keys(page)
    assert MODEL in shown_in_sidebar(page).replace("\\", "")


def shown_in_sidebar(page: AppTest) -> str:
    return "\n".join(str(part.value) for part in [*page.sidebar.caption, *page.sidebar.warning])


def test_a_suggestion_waits_in_the_box_to_be_sent(open_page: OpenPage, backend: ScriptedBackend) -> None:
    page = open_page()
    page.button(key="suggestion_2").click().run()
    assert page.chat_input(key="message").proto.value == UI_TEXT["en"]["suggestion_2"]
    assert backend.requests == []


def test_a_message_is_sent_with_the_defaults_and_answered(open_page: OpenPage, backend: ScriptedBackend) -> None:
    page = send(open_page(user="ada", conversation="c-1"), "  What am I allergic to? ")
    assert not page.exception
    assert backend.requests == [
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "What am I allergic to?"}],
            "user": "ada",
            "stream": True,
            "metadata": {"conversation_id": "c-1", **DEFAULTS},
            "temperature": 0.7,
        }
    ]
    assert messages(page) == [("user", "What am I allergic to?"), ("assistant", ANSWER)]
    assert "stop" not in keys(page), "the stop button outlived the answer"


def test_only_blanks_are_not_sent(open_page: OpenPage, backend: ScriptedBackend) -> None:
    send(open_page(), "  \n ")
    assert backend.requests == []


def test_every_knob_is_sent_as_set(open_page: OpenPage, backend: ScriptedBackend) -> None:
    page = open_page()
    counts = {"recent_turns": 0, "candidate_n": 500, "retrieve_k": 9, "neighbor_turns": 0, "gate_keep_max": 1}
    for name, value in counts.items():
        page.number_input(key=name).set_value(value)
    page.selectbox(key="retrieval").set_value("lexical")
    page.toggle(key="use_gate").set_value(False)
    page.toggle(key="use_rerank").set_value(False)
    page.slider(key="temperature").set_value(0.3)
    page.number_input(key="max_tokens").set_value(256)
    # The knobs and the message arrive together, as when somebody turns a knob and sends at once.
    send(page, "Hello")
    sent = backend.requests[0]
    assert sent["metadata"] == {
        "conversation_id": sent["metadata"]["conversation_id"],
        "recent_turns": 0,
        "candidate_n": 500,
        "retrieve_k": 9,
        "neighbor_turns": 0,
        "retrieval": "lexical",
        "gate_keep_max": 1,
        "use_gate": False,
        "use_rerank": False,
    }
    assert (sent["temperature"], sent["max_tokens"]) == (0.3, 256)


def test_a_switch_stands_where_the_service_has_it(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.knobs = {"use_rerank": False}
    page = open_page()
    assert not page.toggle(key="use_rerank").value
    send(page, "Hello")
    assert backend.requests[-1]["metadata"] == DEFAULTS | {
        "conversation_id": page.query_params["conversation"],
        "use_rerank": False,
    }


def test_every_memory_knob_stands_where_the_service_has_it(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.knobs = {
        "neighbor_turns": 0,
        "retrieval": "dense",
        "retrieve_k": 7,
        "gate_keep_max": 9000,
        "candidate_n": None,
    }
    page = open_page()
    send(page, "Hello")
    expected = DEFAULTS | {"neighbor_turns": 0, "retrieval": "dense", "retrieve_k": 7}
    assert backend.requests[-1]["metadata"] == expected | {"conversation_id": page.query_params["conversation"]}


def test_temperature_zero_is_sent_as_zero(open_page: OpenPage, backend: ScriptedBackend) -> None:
    page = open_page()
    page.slider(key="temperature").set_value(0.0)
    send(page, "Hello")
    assert backend.requests[0]["temperature"] == 0


def test_every_knob_says_what_it_does(open_page: OpenPage) -> None:
    page = open_page()
    knobs: list[Any] = [*page.sidebar.number_input, *page.sidebar.toggle, *page.sidebar.slider]
    knobs.append(page.sidebar.selectbox(key="retrieval"))
    assert {knob.key for knob in knobs} == {*DEFAULTS, "temperature", "max_tokens"}
    for knob in knobs:
        assert knob.help == UI_TEXT["en"][f"{knob.key}_help"]


def test_the_history_used_is_under_the_answer(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.retrieved = some_history()
    page = send(open_page(), "Where shall we eat?")
    (history,) = page.main.expander
    assert history.label == "History used · 1 replayed · 1 summarised"
    lines = [str(part.value) for part in history.markdown]
    assert any("2025-11-03 13:05 · similarity 0.83 · turn 3 · “november”" in line for line in lines)
    assert any("2025-10-14 13:05 · similarity 0.61 · turn 1 · “october”" in line for line in lines)
    assert "Noted: **no peanuts**." in lines
    assert [text.value for text in history.text] == [
        "I am allergic to peanuts.",
        "Ada plans a trip to Kyoto.",
    ]
    send(page, "And tomorrow?")
    assert len(page.main.expander) == 2, "an earlier answer lost its history"


def headlines(page: AppTest) -> list[str]:
    (history,) = page.main.expander
    return [str(part.value) for part in history.markdown if "badge" in str(part.value)]


def test_turns_that_came_along_stand_around_the_replayed_one(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.retrieved = some_history()
    backend.retrieved["replay"] += neighbors_of_november()
    page = send(open_page(), "Where shall we eat?")
    (history,) = page.main.expander
    assert history.label == "History used · 1 replayed · 1 summarised"
    assert [line.partition("]")[0] for line in headlines(page)] == [
        ":gray-badge[Beside it",
        ":blue-badge[Replayed",
        ":gray-badge[Beside it",
        ":gray-badge[Summary",
    ]
    assert "2025-11-03 13:05 · turn 2" in headlines(page)[0]
    assert [text.value for text in history.text] == [
        "I had a rash.",
        "I am allergic to peanuts.",
        "And cashews, too.",
        "Ada plans a trip to Kyoto.",
    ]


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ({"dense": 0.8312, "lexical": None}, " · similarity 0.83 · "),
        ({"dense": 0.8312, "lexical": 7.5}, " · similarity 0.83, and by its words · "),
        ({"dense": None, "lexical": 7.5}, " · found by its words · "),
        ({"dense": None, "lexical": None}, "13:05 · turn"),
    ],
)
def test_it_says_how_a_memory_was_found(
    open_page: OpenPage, backend: ScriptedBackend, scores: dict[str, float | None], told: str
) -> None:
    backend.retrieved = some_history()
    # What fused rankings give is no similarity.
    backend.retrieved["replay"][0] |= {"score": 0.0325, "scores": scores}
    line = headlines(send(open_page(), "Where shall we eat?"))[0]
    assert told in line
    assert "0.03" not in line


def test_conversations_are_called_by_their_titles(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.remember("ada", "november", "Food *I* cannot\neat " + "and more " * 20, "Noted.")
    backend.retrieved = some_history()
    page = send(open_page(user="ada"), "Where shall we eat?")
    (history,) = page.main.expander
    [line] = [part for part in history.markdown if "“Food \\*I\\* cannot eat and more" in str(part.value)]
    assert line.help == "Conversation id: `november`"
    assert len(str(line.value)) < 200


@pytest.mark.parametrize(
    ("language", "told"),
    [
        ("en", "You named a time, “last week” (2025-11-03 – 2025-11-09): memories of that time come first."),
        ("zh", "你提到了时间“last week”（2025-11-03 – 2025-11-09），这段时间的记忆优先。"),
    ],
)
def test_a_time_that_was_named_is_told(open_page: OpenPage, backend: ScriptedBackend, language: str, told: str) -> None:
    backend.retrieved = some_history()
    backend.time_range = {
        "phrase": "last week",
        "start": "2025-11-03T00:00:00.000000Z",
        "end": "2025-11-10T00:00:00.000000Z",
    }
    page = send(open_page(lang=language, user="ada"), "Where did we eat last week?")
    again = open_page(lang=language, user="ada", conversation=page.query_params["conversation"])
    for read in (page, again):
        (history,) = read.main.expander
        assert any(told in str(caption.value) for caption in history.caption)


def test_the_days_of_a_named_time_are_those_of_the_zone_in_which_it_was_asked(
    open_page: OpenPage, backend: ScriptedBackend
) -> None:
    backend.retrieved = some_history()
    backend.time_range = {
        "phrase": "yesterday",
        "start": "2025-11-02T16:00:00.000000Z",
        "end": "2025-11-03T16:00:00.000000Z",
        "timezone": "UTC+08:00",
    }
    page = send(open_page(), "What did I eat yesterday?")
    (history,) = page.main.expander
    assert any("“yesterday” (2025-11-03)" in str(caption.value) for caption in history.caption)


@pytest.mark.parametrize(("browser", "sent"), [("Asia/Shanghai", "Asia/Shanghai"), ("Etc/Unknown", None), (None, None)])
def test_a_question_tells_the_browsers_zone(
    open_page: OpenPage,
    backend: ScriptedBackend,
    monkeypatch: pytest.MonkeyPatch,
    browser: str | None,
    sent: str | None,
) -> None:
    monkeypatch.setattr(type(st.context), "timezone", property(lambda _context: browser))
    send(open_page(), "Hello")
    assert backend.requests[-1]["metadata"].get("timezone") == sent


def test_an_answer_from_no_memory_says_so(open_page: OpenPage) -> None:
    assert UI_TEXT["en"]["history_none"] in shown(send(open_page(), "Hello"))


@pytest.mark.parametrize("language", UI_TEXT)
def test_a_memory_notice_of_a_known_kind_is_in_the_pages_language(
    open_page: OpenPage, backend: ScriptedBackend, language: str
) -> None:
    backend.notice, backend.notice_code = "Answered without long-term memory: no luck.", "embedding_model_mismatch"
    (warning,) = send(open_page(lang=language), "Hello").main.warning
    texts = UI_TEXT[language]
    assert warning.value == f"**{texts['memory_degraded']}** {texts['notice_model_mismatch']}"


def test_another_memory_notice_is_shown_in_full(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.notice = "The embedding endpoint is down."
    page = send(open_page(lang="zh"), "Hello")
    (warning,) = page.main.warning
    assert warning.value == f"**{UI_TEXT['zh']['memory_degraded']}** The embedding endpoint is down\\."


@pytest.mark.parametrize("language", UI_TEXT)
@pytest.mark.parametrize(
    ("status", "key"),
    [
        (401, "error_not_authorized"),
        (429, "error_too_busy"),
        (500, "error_failed"),
        (502, "error_chat_down"),
        (503, "error_too_busy"),
        (504, "error_chat_slow"),
    ],
)
def test_an_error_says_what_happened_and_what_to_do(
    open_page: OpenPage, backend: ScriptedBackend, language: str, status: int, key: str
) -> None:
    page = open_page(lang=language)
    backend.fail_status = status
    send(page, "Do not lose me")
    (error,) = page.main.error
    assert error.value == f"**{UI_TEXT[language][key]}** {UI_TEXT[language][f'{key}_fix']}"
    assert REQUEST_ID in shown(page)
    assert "Said by the service" in shown(page)
    assert messages(page)[0] == ("user", "Do not lose me")
    assert not page.exception


def test_a_refused_field_is_named_as_the_page_names_it(open_page: OpenPage, backend: ScriptedBackend) -> None:
    page = open_page()
    backend.fail_status, backend.fail_param = 400, "metadata.candidate_n"
    send(page, "Hello")
    assert "field **Candidates \\(metadata\\.candidate\\_n\\)**" in page.main.error[0].value


def test_trying_again_sends_the_same_message_once(open_page: OpenPage, backend: ScriptedBackend) -> None:
    page = open_page()
    backend.fail_status = 502
    send(page, "Do not lose me")
    backend.fail_status = None
    (retry,) = [key for key in keys(page) if key.startswith("retry_")]
    page.button(key=retry).click().run()
    assert [sent["messages"][0]["content"] for sent in backend.requests] == ["Do not lose me"] * 2
    assert messages(page) == [("user", "Do not lose me"), ("assistant", ANSWER)]
    assert not page.main.error


def test_a_failed_message_can_be_edited(open_page: OpenPage, backend: ScriptedBackend) -> None:
    page = open_page()
    backend.fail_status = 400
    send(page, "Do not lose me")
    (edit,) = [key for key in keys(page) if key.startswith("edit_")]
    page.button(key=edit).click().run()
    assert page.chat_input(key="message").proto.value == "Do not lose me"
    assert messages(page) == []


def test_a_failed_message_survives_a_look_at_another_conversation(
    open_page: OpenPage, backend: ScriptedBackend
) -> None:
    backend.remember("ada", "other", "Hi", "Hello, Ada.")
    page = open_page(user="ada", conversation="c-1")
    backend.fail_status = 502
    send(page, "Do not lose me")
    page.text_input(key="conversation_id").set_value("other").run()
    assert messages(page) == [("user", "Hi"), ("assistant", "Hello, Ada.")]
    page.text_input(key="conversation_id").set_value("c-1").run()
    assert messages(page)[0] == ("user", "Do not lose me")


def test_an_answer_that_breaks_off_keeps_its_beginning(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.break_after = 2
    page = send(open_page(), "Hello")
    assert messages(page)[1] == ("assistant", "Peanuts, you told me")
    assert UI_TEXT["en"]["error_broken"] in page.main.error[0].value
    assert "The model went away" in shown(page)


@pytest.mark.parametrize("language", UI_TEXT)
def test_an_unreachable_service_is_named_with_its_address(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv("BACKEND_URL", f"{address}/v1")
    page = open_page(lang=language)
    assert f"`{address}`" in page.main.error[0].value
    assert "`BACKEND_URL`" in page.main.error[0].value
    send(page, "Do not lose me")
    assert messages(page)[0] == ("user", "Do not lose me")
    assert not page.exception


def test_a_conversation_that_could_not_be_read_can_be_read_again(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.remember("ada", "c-1", "Hi", "Hello, Ada.")
    backend.fail_status, backend.fail_reads = 500, True
    page = open_page(user="ada", conversation="c-1")
    assert UI_TEXT["en"]["error_failed"] in page.main.error[0].value
    backend.fail_status, backend.fail_reads = None, False
    page.button(key="reload").click().run()
    assert messages(page) == [("user", "Hi"), ("assistant", "Hello, Ada.")]
    assert not page.main.error


def test_a_malformed_address_is_one_line_on_the_page(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND_URL", "127.0.0.1:9000")
    page = open_page()
    assert "is malformed" in page.main.error[0].value
    assert not page.exception


def test_the_key_is_sent_and_never_shown(
    open_page: OpenPage, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKEND_API_KEY", "sk-hunter2")
    page = open_page()
    backend.fail_status = 401
    send(page, "Hello")
    assert backend.authorizations == ["Bearer sk-hunter2"]
    assert "hunter2" not in shown(page) + shown_in_sidebar(page)


def test_a_reload_comes_back_to_the_conversation(open_page: OpenPage) -> None:
    page = send(open_page(user="ada"), "I am allergic to peanuts.")
    assert page.query_params["user"] == "ada"
    again = open_page(user="ada", conversation=page.query_params["conversation"])
    assert messages(again) == [("user", "I am allergic to peanuts."), ("assistant", ANSWER)]


def test_a_reload_still_shows_the_history_used(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.retrieved = some_history()
    page = send(open_page(user="ada"), "Where shall we eat?")
    again = open_page(user="ada", conversation=page.query_params["conversation"])
    (history,) = again.main.expander
    assert history.label == "History used · 1 replayed · 1 summarised"


def test_a_conversation_of_the_list_is_reopened(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.remember("ada", "old", "The old one?", "Yes.")
    backend.remember("ada", "new", "The new one?", "Indeed.")
    backend.remember("eve", "secret", "Mine alone?", "Yes.")
    page = open_page(user="ada")
    titles = [button.label for button in page.sidebar.button if (button.key or "").startswith("conversation_")]
    assert titles == ["The new one?", "The old one?"]
    page.button(key="conversation_1").click().run()
    assert messages(page) == [("user", "The old one?"), ("assistant", "Yes.")]
    assert page.text_input(key="conversation_id").value == "old"
    assert page.query_params["conversation"] == "old"
    assert page.button(key="conversation_1").disabled, "the open conversation is not marked"


def test_a_long_list_is_shown_in_steps(open_page: OpenPage, backend: ScriptedBackend) -> None:
    for number in range(20):
        backend.remember("ada", f"c-{number}", f"Number {number}", "Yes.")
    page = open_page(user="ada")
    assert "conversation_15" not in keys(page)
    page.button(key="conversations_more").click().run()
    assert "conversation_19" in keys(page)
    assert "conversations_more" not in keys(page)


def test_the_list_shows_a_conversation_once_it_has_an_answer(open_page: OpenPage) -> None:
    page = open_page()
    assert UI_TEXT["en"]["conversations_none"] in shown_in_sidebar(page)
    send(page, "I am new")
    assert page.button(key="conversation_0").label == "I am new"


def test_ids_lose_their_blanks(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.remember("ada", "c-1", "Hi", "Hello, Ada.")
    page = open_page()
    page.text_input(key="user_id").set_value("  ada ").run()
    page.text_input(key="conversation_id").set_value(" c-1\t").run()
    assert messages(page) == [("user", "Hi"), ("assistant", "Hello, Ada.")]
    send(page, "Again")
    assert (backend.requests[0]["user"], backend.requests[0]["metadata"]["conversation_id"]) == ("ada", "c-1")


@pytest.mark.parametrize("name", ["user_id", "conversation_id"])
def test_an_empty_id_is_told_and_the_old_one_kept(open_page: OpenPage, backend: ScriptedBackend, name: str) -> None:
    page = open_page(user="ada", conversation="c1")
    page.text_input(key=name).set_value("   ").run()
    kept = {"user_id": "ada", "conversation_id": "c1"}[name]
    assert UI_TEXT["en"][f"{name}_empty"].format(kept=kept) in shown_in_sidebar(page)
    assert page.text_input(key=name).value == kept
    send(page, "Hello")
    assert (backend.requests[0]["user"], backend.requests[0]["metadata"]["conversation_id"]) == ("ada", "c1")


def test_another_user_gets_a_conversation_of_their_own(open_page: OpenPage, backend: ScriptedBackend) -> None:
    page = send(open_page(user="ada", conversation="c-1"), "Mine")
    page.text_input(key="user_id").set_value("eve").run()
    assert messages(page) == []
    assert page.text_input(key="conversation_id").value != "c-1"
    assert "conversation_0" not in keys(page), "another user's conversations are listed"


def test_new_chat_is_another_conversation(open_page: OpenPage, backend: ScriptedBackend) -> None:
    page = send(open_page(), "First")
    page.button(key="new_chat").click().run()
    assert messages(page) == []
    send(page, "Second")
    first, second = (sent["metadata"]["conversation_id"] for sent in backend.requests)
    assert first != second
    assert page.text_input(key="conversation_id").value == second
    assert page.query_params["conversation"] == second


def test_clearing_empties_the_page_and_nothing_else(open_page: OpenPage, backend: ScriptedBackend) -> None:
    page = send(open_page(user="ada", conversation="c-1"), "First")
    page.button(key="clear_ui").click().run()
    assert messages(page) == []
    assert UI_TEXT["en"]["cleared"] in shown(page)
    assert page.text_input(key="conversation_id").value == "c-1"
    assert len(backend.turns["ada", "c-1"]) == 1
    send(page, "Second")
    assert messages(page) == [("user", "Second"), ("assistant", ANSWER)]
    assert backend.requests[1]["metadata"]["conversation_id"] == "c-1"


def test_a_cleared_page_can_be_filled_again(open_page: OpenPage) -> None:
    page = send(open_page(), "First")
    page.button(key="clear_ui").click().run()
    page.button(key="show_again").click().run()
    assert messages(page) == [("user", "First"), ("assistant", ANSWER)]


def test_a_long_conversation_says_that_it_is_longer(open_page: OpenPage, backend: ScriptedBackend) -> None:
    for number in range(53):
        backend.remember("ada", "c-1", f"Question {number}", "Yes.")
    page = open_page(user="ada", conversation="c-1")
    assert UI_TEXT["en"]["turns_limited"].format(count=50) in shown(page)
    assert messages(page)[0] == ("user", "Question 3")


@pytest.mark.parametrize(("reason", "key"), [("length", "finish_length"), ("client_gone", "finish_early")])
def test_an_answer_that_ended_early_says_so(
    open_page: OpenPage, backend: ScriptedBackend, reason: str, key: str
) -> None:
    backend.remember("ada", "c-1", "Tell me all", "Once upon a")
    backend.turns["ada", "c-1"][0].finish_reason = reason
    expected = UI_TEXT["en"][key].format(reason=reason.replace("_", "\\_"))
    assert expected in shown(open_page(user="ada", conversation="c-1"))


def test_the_language_is_switched_in_place(open_page: OpenPage) -> None:
    page = send(open_page(lang="en"), "Hello")
    page.selectbox(key="language").set_value("zh").run()
    assert page.button(key="new_chat").label == UI_TEXT["zh"]["new_chat"]
    assert page.chat_input(key="message").placeholder == UI_TEXT["zh"]["chat_placeholder"]
    assert UI_TEXT["zh"]["history_none"] in shown(page)
    assert messages(page) == [("user", "Hello"), ("assistant", ANSWER)]
    assert page.query_params["lang"] == "zh"


def test_the_address_may_name_an_unknown_language(open_page: OpenPage) -> None:
    assert open_page(lang="xx").button(key="new_chat").label == UI_TEXT["en"]["new_chat"]


def test_a_models_images_do_not_load_and_its_amounts_stay(open_page: OpenPage, backend: ScriptedBackend) -> None:
    backend.pieces = ["![x](http://127.0.0.1:1/leak.png) ", "from $5 to $10"]
    page = send(open_page(), "Hello")
    assert messages(page)[1][1] == "\\![x](http://127.0.0.1:1/leak.png) from \\$5 to \\$10"
