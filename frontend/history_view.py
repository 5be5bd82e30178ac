"""The history below an answer: which memories it was given, and why.

A replayed exchange is in one box with its neighbors, in the order of the conversation. Conversations are shown by their
titles; the tooltip has the id.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import streamlit as st

from frontend.live_answer import AnswerSnapshot
from frontend.local_time import LocalClock
from frontend.markdown_safety import model_markdown, plain
from frontend.memory_actions import draw_memory_actions
from frontend.page_state import PageState
from frontend.ui_text import Words
from frontend.wire import MemoryStatus, NamedTime, Replayed, Retrieved, Summarised

TITLE_LENGTH_MAX = 60
_NOTICES = {
    "embedding_failed": "notice_embedding",
    "embedding_unavailable": "notice_embedding_unavailable",
    "embedding_rejected": "notice_embedding_rejected",
    "embedding_misfit": "notice_embedding_misfit",
    "embedding_model_mismatch": "notice_model_mismatch",
    "index_unavailable": "notice_index",
    "index_catching_up": "notice_catching_up",
}
"""The service's codes for degraded memory, and the key of the text for each."""


def draw_history(where: str, answer: AnswerSnapshot, page: PageState, words: Words, clock: LocalClock) -> None:
    """Draw the memories that an answer was given, and a notice if memory was degraded; `where` makes keys unique."""
    status = answer.memory_status
    if status is not None and status.notice:
        known = _NOTICES.get(status.code or "")
        notice = words(known) if known is not None else plain(status.notice)
        st.warning(f"**{words('memory_degraded')}** {notice}", icon=":material/history_toggle_off:")
    used = answer.retrieved
    if used is None:
        return
    shown = _shown(status, words)
    if not used.replay and not used.summary_only:
        st.caption(f":material/history: {shown or words('history_none')}")
        return
    replayed = sum(item.neighbor_of is None for item in used.replay)
    label = words("history_used", replayed=replayed, summaries=len(used.summary_only))
    # The key and `on_change` keep it open when the page is redrawn.
    with st.expander(label, icon=":material/history:", key=f"history_{where}", on_change="rerun"):
        if status is not None and status.time_range is not None:
            st.caption(f":material/calendar_month: {_named_time(status.time_range, words)}")
        if shown:
            st.caption(shown)
        _draw_memories(used, where, page, words, clock)
        st.caption(words("times_are_local", zone=clock.zone_name))


def _shown(status: MemoryStatus | None, words: Words) -> str:
    """How many memories were recalled, and how many of them the model was shown; empty where none was."""
    counts = status.shown if status is not None else None
    if counts is None or not counts.recalled:
        return ""
    said = words(
        "memories_shown",
        recalled=counts.recalled,
        whole=counts.replayed + counts.beside,
        summaries=counts.summarised,
    )
    return f"{said} {words('memories_left_out', count=counts.left_out)}" if counts.left_out else said


def _draw_memories(used: Retrieved, where: str, page: PageState, words: Words, clock: LocalClock) -> None:
    titles = {item.conversation_id: item.title or "" for item in page.conversations}
    for group in _groups(used):
        with st.container(border=True, gap="small"):
            for item in group:
                _draw_exchange(item, page.conversation_id, titles, words, clock)
                draw_memory_actions(page, where, item.memory_id, words)
    for summarised in used.summary_only:
        with st.container(border=True, gap="xxsmall"):
            badge = f":gray-badge[{words('summarised')}]"
            _headline(badge, summarised, page.conversation_id, titles, words, clock)
            st.text(summarised.summary)
            draw_memory_actions(page, where, summarised.memory_id, words)


def _groups(used: Retrieved) -> list[list[Replayed]]:
    """Each replayed memory with its neighbors in the order of their turns; the best memory's group first."""
    groups: dict[str, list[Replayed]] = {}
    for item in used.replay:
        groups.setdefault(item.neighbor_of or item.memory_id, []).append(item)
    return [sorted(group, key=lambda item: item.turn_id) for group in groups.values()]


def _draw_exchange(
    item: Replayed, conversation_id: str, titles: Mapping[str, str], words: Words, clock: LocalClock
) -> None:
    with st.container(gap="xxsmall"):
        if item.neighbor_of is None:
            _headline(f":blue-badge[{words('replayed')}]", item, conversation_id, titles, words, clock)
        else:
            # The memory it belongs to names the conversation.
            said = f"{clock.format(item.ts)} · {words('memory_turn', turn=item.turn_id)}"
            st.markdown(f":gray-badge[{words('came_along')}] :small[:gray[{said}]]")
        st.markdown(f":small[:gray[{words('you')}]]")
        st.text(item.raw_user)
        st.markdown(f":small[:gray[{words('assistant')}]]")
        st.markdown(model_markdown(item.raw_assistant))


def _headline(
    badge: str,
    memory: Replayed | Summarised,
    conversation_id: str,
    titles: Mapping[str, str],
    words: Words,
    clock: LocalClock,
) -> None:
    found = _why_found(memory, words)
    parts = [clock.format(memory.ts), *([found] if found else []), words("memory_turn", turn=memory.turn_id)]
    here = memory.conv_id == conversation_id
    title = " ".join(titles.get(memory.conv_id, "").split())[:TITLE_LENGTH_MAX]
    parts.append(
        words("memory_this_conversation")
        if here
        else words("memory_other_conversation", conversation=plain(title or memory.conv_id))
    )
    help_text = words("memory_conversation_id", conversation=memory.conv_id.replace("`", "")) if title else None
    st.markdown(f"{badge} :small[:gray[{' · '.join(parts)}]]", help=None if here else help_text)


def _why_found(memory: Replayed | Summarised, words: Words) -> str:
    """How a memory was found: its similarity, and whether its words matched; empty for a neighbor."""
    if memory.scores is None:
        return words("memory_similarity", score=f"{memory.score:.2f}") if memory.score is not None else ""
    by_words = memory.scores.lexical is not None
    if memory.scores.dense is None:
        return words("memory_by_words") if by_words else ""
    similarity = words("memory_similarity", score=f"{memory.scores.dense:.2f}")
    return words("memory_and_by_words", similarity=similarity) if by_words else similarity


def _named_time(named: NamedTime, words: Words) -> str:
    # In the zone in which the question was asked, which may be another one than that of this browser.
    clock = LocalClock(named.timezone)
    # `end` is exclusive.
    first, last = clock.day(named.start), clock.day(named.end - timedelta(microseconds=1))
    days = f"{first}" if first == last else f"{first} – {last}"
    return words("time_named", phrase=plain(named.phrase), days=days)
