"""The two actions on a memory, wherever it is shown: forget it, after a confirmation, and edit its summary.

One action is open at a time in a tab; the session state says which. After a change, the conversation is read again from
the service.
"""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from frontend.backend_errors import BackendError
from frontend.page_state import PageState
from frontend.problems import describe
from frontend.ui_text import Words

_OPEN, _ERROR, _TEXT = "memory_action", "memory_action_error", "memory_summary"


@dataclass(frozen=True)
class _Action:
    """What a person is about to do to a memory, and at which place on the page."""

    kind: str
    place: str
    memory_id: str


def draw_memory_actions(page: PageState, where: str, memory_id: str, words: Words) -> None:
    """Draw the two buttons of a memory and the open action below them. `where` tells places on the page apart."""
    place = f"{where}_{memory_id}"
    forget, edit = _Action("forget", place, memory_id), _Action("edit", place, memory_id)
    with st.container(horizontal=True, horizontal_alignment="right", gap="small"):
        st.button(
            words("memory_forget"),
            key=f"memory_forget_{place}",
            type="tertiary",
            icon=":material/delete:",
            on_click=_open,
            args=(page, forget),
        )
        st.button(
            words("memory_edit"),
            key=f"memory_edit_{place}",
            type="tertiary",
            icon=":material/edit_note:",
            on_click=_open,
            args=(page, edit),
        )
    opened = st.session_state.get(_OPEN)
    if opened == forget:
        st.caption(words("memory_forget_sure"))
        _draw_answer(page, opened, words("memory_forget_yes"), words)
    elif opened == edit:
        st.text_area(words("memory_summary"), key=_TEXT, help=words("memory_summary_help"))
        _draw_answer(page, opened, words("memory_save"), words)
    failed: tuple[str, BackendError] | None = st.session_state.get(_ERROR)
    if failed is not None and failed[0] == place:
        problem = describe(failed[1], words, page.backend.address)
        st.error(f"**{problem.what}** {problem.fix}", icon=":material/error:")


def _draw_answer(page: PageState, action: _Action, yes: str, words: Words) -> None:
    with st.container(horizontal=True, gap="small"):
        st.button(yes, key=f"memory_yes_{action.place}", type="primary", on_click=_do, args=(page, action))
        st.button(words("memory_cancel"), key=f"memory_cancel_{action.place}", on_click=_close)


def _open(page: PageState, action: _Action) -> None:
    _close()
    if action.kind == "edit":
        try:
            memory = page.backend.memory(page.user, action.memory_id)
        except BackendError as error:
            st.session_state[_ERROR] = (action.place, error)
            return
        st.session_state[_TEXT] = memory.summary or ""
    st.session_state[_OPEN] = action


def _close() -> None:
    st.session_state.pop(_OPEN, None)
    st.session_state.pop(_ERROR, None)


def _do(page: PageState, action: _Action) -> None:
    try:
        if action.kind == "forget":
            page.backend.forget(page.user, action.memory_id)
        else:
            page.backend.edit(page.user, action.memory_id, str(st.session_state.get(_TEXT) or ""))
    except BackendError as error:
        st.session_state[_ERROR] = (action.place, error)
        return
    _close()
    page.open(page.user, page.conversation_id)
