"""The sidebar: new chat, conversations, user and conversation id, knobs, language.

Each control is a Streamlit widget with a key. Its action is a callback, because only callbacks may change the value of
another widget, such as an id in its box.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from frontend.knobs import (
    KNOBS,
    MAX_TOKENS,
    MEMORY_COUNTS,
    MEMORY_SWITCHES,
    RETRIEVAL,
    TEMPERATURE,
    Choice,
    Count,
    KnobValue,
    Switch,
)
from frontend.local_time import LocalClock
from frontend.markdown_safety import plain
from frontend.page_state import PageState
from frontend.ui_text import UI_TEXT, Words
from frontend.wire import ConversationInfo

CONVERSATIONS_SHOWN_STEP = 15
TITLE_LENGTH_MAX = 60


def draw_language(words: Words) -> None:
    """The choice of language; its value is in session state under `language`."""
    st.selectbox(
        words("language"),
        options=list(UI_TEXT),
        format_func=lambda language: UI_TEXT[language]["language_name"],
        key="language",
        icon=":material/translate:",
        label_visibility="collapsed",
        filter_mode=None,
    )


def draw_conversations(page: PageState, words: Words, clock: LocalClock) -> None:
    """New chat, and the list of the user's conversations."""
    st.button(
        words("new_chat"),
        key="new_chat",
        icon=":material/edit_square:",
        type="primary",
        width="stretch",
        on_click=_new_chat,
        args=(page,),
    )
    st.caption(words("conversations"))
    if not page.conversations:
        st.caption(words("conversations_none"))
        return
    shown = st.session_state.setdefault("conversations_shown", CONVERSATIONS_SHOWN_STEP)
    with st.container(key="conversation_list", gap=None):
        for number, conversation in enumerate(page.conversations[:shown]):
            _conversation_button(number, conversation, page, words, clock)
        if len(page.conversations) > shown:
            st.button(
                words("conversations_more"),
                key="conversations_more",
                type="tertiary",
                icon=":material/expand_more:",
                on_click=_show_more,
            )


def draw_identity(page: PageState, words: Words) -> None:
    """The ids of the user and the conversation, to see and change."""
    with st.expander(words("identity"), icon=":material/person:"):
        _id_box("user_id", page.user, words, _change_user, page)
        _id_box("conversation_id", page.conversation_id, words, _change_conversation, page)
    for name in ("user_id", "conversation_id"):
        if st.session_state.get(f"{name}_was_empty"):
            kept = page.user if name == "user_id" else page.conversation_id
            st.warning(words(f"{name}_empty", kept=plain(kept)), icon=":material/edit:")


def draw_knobs(page: PageState, words: Words) -> None:
    """All knobs; `knob_values` reads them."""
    with st.expander(words("memory_settings"), icon=":material/history:"):
        _choice_box(RETRIEVAL, page.default_of(RETRIEVAL), words)
        for pair in (MEMORY_COUNTS[at : at + 2] for at in range(0, len(MEMORY_COUNTS), 2)):
            for column, count in zip(st.columns(2, vertical_alignment="bottom"), pair, strict=False):
                with column:
                    _count_box(count, page.default_of(count), words)
        for switch in MEMORY_SWITCHES:
            _toggle(switch, page.default_of(switch), words)
    with st.expander(words("answer_settings"), icon=":material/tune:"):
        st.slider(
            words(TEMPERATURE.name),
            min_value=TEMPERATURE.low,
            max_value=TEMPERATURE.high,
            value=TEMPERATURE.default,
            step=TEMPERATURE.step,
            help=words(f"{TEMPERATURE.name}_help"),
            key=TEMPERATURE.name,
        )
        _count_box(MAX_TOKENS, MAX_TOKENS.default, words, words("max_tokens_empty"))


def knob_values() -> dict[str, KnobValue]:
    """The current values of the knobs by wire name.

    Callbacks must read them here: values from the last run of the script are older than the click.
    """
    return {knob.name: st.session_state[knob.name] for knob in KNOBS}


def draw_foot(page: PageState, words: Words) -> None:
    """Clear the page; the model and the address of the service."""
    st.button(
        words("clear_ui"),
        key="clear_ui",
        icon=":material/mop:",
        help=words("clear_ui_help"),
        width="stretch",
        on_click=page.clear,
    )
    # As code, because a bare address would become a link that shows nothing.
    address = f"`{page.backend.address}`"
    if page.model:
        st.caption(words("backend_model_line", model=plain(page.model.id), address=address))
    else:
        st.caption(words("backend_line", address=address))


def _conversation_button(
    number: int, conversation: ConversationInfo, page: PageState, words: Words, clock: LocalClock
) -> None:
    title = plain(conversation.title or "")[:TITLE_LENGTH_MAX] or words("conversation_untitled")
    is_open = conversation.conversation_id == page.conversation_id
    st.button(
        title,
        key=f"conversation_{number}",
        type="tertiary",
        width="stretch",
        help=words("conversation_line", turns=conversation.turns, when=clock.format(conversation.last_ts)),
        disabled=is_open,
        on_click=_open,
        args=(page, conversation.conversation_id),
    )


def _id_box(name: str, current: str, words: Words, on_change: Callable[[PageState], None], page: PageState) -> None:
    st.session_state.setdefault(name, current)
    st.text_input(
        words(name),
        key=name,
        help=words(f"{name}_help"),
        on_change=on_change,
        args=(page,),
        autocomplete="off",
    )


def _choice_box(choice: Choice, default: KnobValue, words: Words) -> None:
    options = list(choice.options)
    st.selectbox(
        words(choice.name),
        options=options,
        index=options.index(str(default)),
        format_func=lambda option: words(choice.options[option]),
        help=words(f"{choice.name}_help"),
        key=choice.name,
        filter_mode=None,
    )


def _count_box(count: Count, default: KnobValue, words: Words, placeholder: str | None = None) -> None:
    assert default is None or isinstance(default, int)
    st.number_input(
        words(count.name),
        min_value=count.low,
        max_value=count.high,
        value=default,
        step=count.step,
        help=words(f"{count.name}_help"),
        key=count.name,
        placeholder=placeholder,
    )


def _toggle(switch: Switch, default: KnobValue, words: Words) -> None:
    st.toggle(words(switch.name), value=bool(default), help=words(f"{switch.name}_help"), key=switch.name)


def _typed_id(name: str, current: str) -> str | None:
    """The trimmed id in its box; if it is empty, restore the box and return None."""
    typed = str(st.session_state[name]).strip()
    st.session_state[f"{name}_was_empty"] = not typed
    st.session_state[name] = typed or current
    return typed or None


def _change_user(page: PageState) -> None:
    user = _typed_id("user_id", page.user)
    if user is not None and user != page.user:
        page.begin(user)
        _show_ids(page)


def _change_conversation(page: PageState) -> None:
    conversation_id = _typed_id("conversation_id", page.conversation_id)
    if conversation_id is not None and conversation_id != page.conversation_id:
        page.open(page.user, conversation_id)


def _new_chat(page: PageState) -> None:
    page.begin(page.user)
    _show_ids(page)


def _open(page: PageState, conversation_id: str) -> None:
    page.open(page.user, conversation_id)
    _show_ids(page)


def _show_ids(page: PageState) -> None:
    st.session_state["user_id"] = page.user
    st.session_state["conversation_id"] = page.conversation_id
    st.session_state["user_id_was_empty"] = st.session_state["conversation_id_was_empty"] = False


def _show_more() -> None:
    st.session_state["conversations_shown"] += CONVERSATIONS_SHOWN_STEP
