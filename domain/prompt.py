"""The messages sent to the chat model, in a named layout, within a token budget. Pure.

Layout ``system-replay-window-1``: one system message (several chat templates take no other, and only in first place)
with the chat prompt, the client's own system text and the notes; then the replayed exchanges and the recent window as
alternating user and assistant turns; last the question.

The system text and the question are always there. Then the window is filled from its newest turn without a gap, the
replay from its best memory, the notes from their best. An item that does not fit is left out whole and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from domain.chain import canonical, digest
from domain.events import LeftOut
from domain.memory import Memory

Message = dict[str, str]
CountTokens = Callable[[str], int]

LAYOUT = "system-replay-window-1"
_MESSAGE_OVERHEAD_TOKENS = 8
"""What a chat template adds around a message: role, start and end marks; 4 to 6 in the common ones."""
_NO_TEXT = "(no text)"
_NOTES_HEADING = "What you remember:"
_HEADING = f"\n\n{_NOTES_HEADING}\n"


@dataclass(frozen=True, slots=True)
class BuiltPrompt:
    """The messages, what went into them, best first or oldest first as given, and what was left out."""

    messages: list[Message]
    window: list[Memory]
    replayed: list[Memory]
    summarised: list[Memory]
    left_out: tuple[LeftOut, ...]
    tokens: int


def build_prompt(
    *,
    system: str,
    client_system: str,
    window: Sequence[Memory],
    replay: Sequence[Memory],
    notes: Sequence[Memory],
    question: str,
    budget_tokens: int,
    count: CountTokens,
) -> BuiltPrompt:
    """Put a prompt together.

    ``window`` is oldest first, ``replay`` and ``notes`` best first; ``count`` gives the tokens of a text. The result's
    ``tokens`` exceeds ``budget_tokens`` only when the system text and the question alone do.
    """
    fixed = _fixed(system, client_system)
    tokens = 2 * _MESSAGE_OVERHEAD_TOKENS + count(fixed) + count(question)
    left_out: list[LeftOut] = []

    kept_window: list[Memory] = []
    fits = True
    for turn in reversed(window):
        cost = _exchange_cost(turn.user, turn.assistant, count)
        fits = fits and tokens + cost <= budget_tokens
        if fits:
            kept_window.append(turn)
            tokens += cost
        else:
            left_out.append(LeftOut(part="window", memory_id=turn.memory_id, tokens=cost))
    kept_window.reverse()

    kept_replay: list[Memory] = []
    for memory in replay:
        cost = _exchange_cost(_dated(memory), memory.assistant, count)
        if tokens + cost <= budget_tokens:
            kept_replay.append(memory)
            tokens += cost
        else:
            left_out.append(LeftOut(part="replay", memory_id=memory.memory_id, tokens=cost))

    kept_notes: list[Memory] = []
    heading = count(_HEADING)
    for memory in notes:
        cost = count(f"{_note(memory)}\n") + (0 if kept_notes else heading)
        if tokens + cost <= budget_tokens:
            kept_notes.append(memory)
            tokens += cost
        else:
            left_out.append(LeftOut(part="summary", memory_id=memory.memory_id, tokens=cost))

    messages = [{"role": "system", "content": _with_notes(fixed, kept_notes)}]
    for memory in sorted(kept_replay, key=lambda memory: memory.position):
        messages += _exchange(_dated(memory), memory.assistant)
    for turn in kept_window:
        messages += _exchange(turn.user, turn.assistant)
    messages.append({"role": "user", "content": question})
    return BuiltPrompt(messages, kept_window, kept_replay, kept_notes, tuple(left_out), tokens)


def messages_hash(messages: Sequence[Message]) -> str:
    """Return the hash by which messages made again can be told to be the ones that were sent."""
    return digest(canonical(list(messages)))


def texts_to_count(
    *,
    system: str,
    client_system: str,
    window: Sequence[Memory],
    replay: Sequence[Memory],
    notes: Sequence[Memory],
    question: str,
) -> list[str]:
    """Return the texts whose tokens :func:`build_prompt` will ask for, so that they can be counted ahead."""
    texts = [_fixed(system, client_system), question, _HEADING]
    texts += [text for turn in window for text in (turn.user, turn.assistant)]
    texts += [text for memory in replay for text in (_dated(memory), memory.assistant)]
    return texts + [f"{_note(memory)}\n" for memory in notes]


def _fixed(system: str, client_system: str) -> str:
    return "\n\n".join(part for part in (system.strip(), client_system.strip()) if part)


def _note(memory: Memory) -> str:
    return f"- ({memory.ts:%Y-%m-%d}) {memory.note}"


def _dated(memory: Memory) -> str:
    return f"[{memory.ts:%Y-%m-%d}] {memory.user}"


def _with_notes(fixed: str, notes: Sequence[Memory]) -> str:
    if not notes:
        return fixed
    # By age, so that the model reads what happened in its order; which ones are here was decided by their rank.
    lines = [_note(memory) for memory in sorted(notes, key=lambda memory: memory.position)]
    return "\n".join((f"{fixed}\n\n{_NOTES_HEADING}", *lines))


def _exchange(user: str, assistant: str) -> list[Message]:
    return [
        {"role": "user", "content": user or _NO_TEXT},
        {"role": "assistant", "content": assistant or _NO_TEXT},
    ]


def _exchange_cost(user: str, assistant: str, count: CountTokens) -> int:
    return 2 * _MESSAGE_OVERHEAD_TOKENS + count(user) + count(assistant)
