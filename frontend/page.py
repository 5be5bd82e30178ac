"""The chat page, drawn: Streamlit runs this script from top to bottom whenever a widget changes.

Settings come from the environment (see `settings`). The user, the conversation and the language are in the page's
address, so that a reload or a bookmark returns to the same place.
"""

from __future__ import annotations

import sys
from pathlib import Path

# `streamlit run` puts this file's folder on the path, but `frontend` is a package in the folder above.
if (root := str(Path(__file__).resolve().parent.parent)) not in sys.path:
    sys.path.insert(0, root)

import streamlit as st

from frontend.backend import Backend
from frontend.local_time import LocalClock
from frontend.markdown_safety import plain
from frontend.page_state import DEFAULT_USER, PageState, new_conversation_id
from frontend.settings import SettingsError, load_settings
from frontend.sidebar import (
    draw_conversations,
    draw_foot,
    draw_identity,
    draw_knobs,
    draw_language,
    knob_values,
)
from frontend.thread_view import draw_empty, draw_problem, draw_thread
from frontend.ui_text import Words, best_language

STYLE = Path(__file__).with_name("page.css")
# Streamlit would load an icon by name from another host.
ICON = Path(__file__).with_name("icon.svg")


def main() -> None:
    """Draw the page."""
    st.session_state.setdefault("language", best_language([st.query_params.get("lang"), st.context.locale]))
    words = Words(st.session_state["language"])
    st.set_page_config(page_title=words("page_title"), page_icon=ICON, layout="centered")
    st.html(STYLE)
    page = _page(words)
    clock = LocalClock(st.context.timezone)
    page.timezone = clock.known
    with st.sidebar:
        st.markdown(f"### :material/neurology: {words('page_title')}")
        st.caption(words("tagline"))
        draw_conversations(page, words, clock)
        draw_identity(page, words)
        draw_knobs(page, words)
        draw_foot(page, words)
        draw_language(words)
    _keep_place_in_address(page)
    st.chat_input(
        words("chat_placeholder"),
        key="message",
        submit_mode="disable",
        on_submit=_send,
        args=(page,),
    )
    _draw_body(page, words, clock)


def _page(words: Words) -> PageState:
    """This tab's state; the first run creates it from the address and the service."""
    if "page" not in st.session_state:
        try:
            backend = Backend(load_settings())
        except SettingsError as error:
            st.error(f"**{words('settings_wrong')}** {plain(str(error))}", icon=":material/error:")
            st.stop()
        user = st.query_params.get("user", "").strip() or DEFAULT_USER
        conversation_id = st.query_params.get("conversation", "").strip()
        page = PageState(backend, user, conversation_id or new_conversation_id())
        if conversation_id:
            page.open(user, conversation_id)
        else:
            page.refresh_list()
        st.session_state["page"] = page
    held: PageState = st.session_state["page"]
    return held


def _keep_place_in_address(page: PageState) -> None:
    place = {"user": page.user, "conversation": page.conversation_id, "lang": st.session_state["language"]}
    if st.query_params.to_dict() != place:
        st.query_params.from_dict(place)


def _draw_body(page: PageState, words: Words, clock: LocalClock) -> None:
    if page.load_error is not None:
        draw_problem(page.load_error, words, page.backend.address)
        st.button(words("retry"), key="reload", icon=":material/refresh:", on_click=_reload, args=(page,))
    if page.cleared:
        with st.container(key="cleared"):
            st.caption(words("cleared"))
            st.button(words("show_again"), key="show_again", icon=":material/undo:", on_click=_reload, args=(page,))
    elif not page.exchanges and page.load_error is None:
        draw_empty(words)
    draw_thread(page, words, clock)


def _reload(page: PageState) -> None:
    page.open(page.user, page.conversation_id)


def _send(page: PageState) -> None:
    text = str(st.session_state["message"] or "").strip()
    if text:
        page.send(text, knob_values())


if __name__ == "__main__":
    main()
