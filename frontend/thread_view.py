"""The conversation: messages, answers and errors, and below each answer the history it used.

A message is shown as typed, an answer as Markdown. The script follows a streaming answer that `live_answer` reads: each
look ends in a Streamlit call, where Streamlit may end the script.
"""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.scriptrunner import StopException

from frontend.backend_errors import BackendError
from frontend.history_view import draw_history
from frontend.live_answer import AnswerSnapshot, LiveAnswer
from frontend.local_time import LocalClock
from frontend.markdown_safety import model_markdown, plain
from frontend.memory_actions import draw_memory_actions
from frontend.page_state import Exchange, PageState
from frontend.problems import describe
from frontend.sidebar import knob_values
from frontend.ui_text import Words

SUGGESTIONS = ("suggestion_1", "suggestion_2", "suggestion_3")
LOOK_INTERVAL_S = 0.1
# Twice, because what this run draws may reach the browser later than the script.
JUMP_TO_END = (
    "for (const delay_ms of [100, 600]) setTimeout(() => {"
    " const main = document.querySelector('.stMain');"
    " if (main) main.scrollTop = main.scrollHeight; }, delay_ms);"
)
USER_AVATAR = ":material/person:"
ASSISTANT_AVATAR = ":material/auto_awesome:"


def draw_thread(page: PageState, words: Words, clock: LocalClock) -> None:
    """Draw the whole conversation; returns when the streaming answer, if any, has ended."""
    if page.turns_limited:
        st.caption(words("turns_limited", count=sum(1 for e in page.exchanges if e.live is None)))
    for number, exchange in enumerate(page.exchanges, start=1):
        if number == len(page.exchanges) and page.messages_sent:
            # Before the last exchange, because drawing a streaming one returns only when it has ended.
            _jump_to_end(page.messages_sent)
        _draw_exchange(exchange, page, words, clock)


def draw_empty(words: Words) -> None:
    """Draw a new conversation: an introduction and three messages to start with."""
    with st.container(key="empty_state", horizontal_alignment="center"):
        st.title(words("empty_title"), anchor=False, text_alignment="center")
        st.markdown(words("empty_hint"), text_alignment="center")
        with st.container(horizontal=True, horizontal_alignment="center"):
            for key in SUGGESTIONS:
                st.button(words(key), key=key, on_click=put_in_box, args=(words(key),))


def draw_problem(error: BackendError, words: Words, address: str) -> None:
    """Draw an error with its remedy and details."""
    problem = describe(error, words, address)
    st.error(f"**{problem.what}** {problem.fix}", icon=":material/error:")
    if problem.details:
        st.caption("  \n".join(problem.details))


def put_in_box(text: str) -> None:
    """Put a text in the message box, to edit and send. Call it only in a callback."""
    st.session_state["message"] = text


def _jump_to_end(messages_sent: int) -> None:
    # Streamlit scrolls a growing page only for a reader who is at its end; whoever sends a message wants to see the
    # answer. A script runs again when its text changes, so the number makes it run once per message.
    script = f"<script>/* {messages_sent} */ {JUMP_TO_END}</script>"
    st.html(script, unsafe_allow_javascript=True, width="content")


def _draw_exchange(exchange: Exchange, page: PageState, words: Words, clock: LocalClock) -> None:
    with st.chat_message("user", avatar=USER_AVATAR):
        st.text(exchange.text)
    with st.chat_message("assistant", avatar=ASSISTANT_AVATAR):
        if exchange.live is not None and exchange.answer.state == "running":
            _follow(page, exchange.live, words)
        answer = exchange.answer
        if answer.text:
            st.markdown(model_markdown(answer.text))
        _draw_ending(exchange, answer, page, words)
        # Keyed by memory id, so that what is open stays open when the exchange is read again from the ledger.
        where = answer.turn.memory_id if answer.turn is not None else exchange.key
        if answer.turn is not None and answer.state in ("done", "stopped"):
            draw_memory_actions(page, where, answer.turn.memory_id, words)
        draw_history(where, answer, page, words, clock)


def _follow(page: PageState, live: LiveAnswer, words: Words) -> None:
    """Show the answer as it streams, then rerun the script, which draws it as ended."""
    place = st.empty()
    status = st.empty()
    st.button(words("stop"), key="stop", icon=":material/stop_circle:", on_click=live.stop)
    answer = live.snapshot()
    try:
        while answer.state == "running":
            if answer.text:
                place.markdown(model_markdown(answer.text))
                status.caption(words("writing"))
            else:
                status.caption(words("thinking", seconds=int(live.age_s)))
            answer = live.wait(answer.version, LOOK_INTERVAL_S)
    except StopException:
        # Streamlit's own stop button was pressed, or the browser is gone. A rerun raises another exception only with
        # `runner.fastReruns = false` in `.streamlit/config.toml`.
        live.stop()
        raise
    if answer.state != "failed":
        page.refresh_list()
    st.rerun()


def _draw_ending(exchange: Exchange, answer: AnswerSnapshot, page: PageState, words: Words) -> None:
    if answer.error is not None:
        draw_problem(answer.error, words, page.backend.address)
        with st.container(horizontal=True):
            st.button(
                words("retry"),
                key=f"retry_{exchange.key}",
                icon=":material/refresh:",
                on_click=_retry,
                args=(page, exchange.key),
            )
            st.button(
                words("edit"),
                key=f"edit_{exchange.key}",
                icon=":material/edit:",
                on_click=_edit,
                args=(page, exchange.key),
            )
    elif answer.state == "stopped":
        st.caption(f":material/stop_circle: {words('stopped')}")
    elif answer.finish_reason == "length":
        st.caption(f":material/content_cut: {words('finish_length')}")
    elif answer.finish_reason not in (None, "stop"):
        reason = plain(str(answer.finish_reason))
        st.caption(f":material/stop_circle: {words('finish_early', reason=reason)}")
    elif not answer.text:
        st.caption(words("no_text"))


def _retry(page: PageState, key: str) -> None:
    page.send(page.take_back(key), knob_values())


def _edit(page: PageState, key: str) -> None:
    put_in_box(page.take_back(key))
