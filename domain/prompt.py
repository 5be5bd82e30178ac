"""The messages sent to the chat model, in a named layout, within a token budget. Pure.

Layout ``system-replay-window-3``: one system message (several chat templates take no other, and only in first place)
with the chat prompt, the day of the question, the client's own system text and the notes; then the replayed exchanges,
each in a block with the turns beside it, and the recent window as alternating user and assistant turns; last the
question. Every memory carries its date, so that "yesterday" in it can be understood, and the day of the question says
how long ago that was. (Layout 2 did not name that day; layout 1 had no neighbors, and no dates in the window.)

The system text and the question are always there. Then the window is filled from its newest turn without a gap, the
replay from its best memory, the notes from their best, and last come the neighbors, those of the best memory first. An
item that does not fit is left out whole and reported. A memory that comes along as a neighbor needs no note.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from domain.chain import canonical, digest
from domain.events import LeftOut, PromptPart
from domain.memory import Memory, day
from domain.neighbors import Neighbor, blocks

Message = dict[str, str]
CountTokens = Callable[[str], int]

LAYOUT = "system-replay-window-3"
SECOND_LAYOUT = "system-replay-window-2"
FIRST_LAYOUT = "system-replay-window-1"
LAYOUTS = (FIRST_LAYOUT, SECOND_LAYOUT, LAYOUT)
"""A prompt is made in the newest; the older ones can be made again."""
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
    neighbors: list[Neighbor]
    left_out: tuple[LeftOut, ...]
    tokens: int


@dataclass(slots=True)
class _Room:
    """What is left of a budget, and what did not fit."""

    budget_tokens: int
    tokens: int
    left_out: list[LeftOut] = field(default_factory=list)

    def takes(self, part: PromptPart, memory: Memory, cost: int, *, closed: bool = False) -> bool:
        """Take an item in if there is room, else note that it was left out."""
        if closed or self.tokens + cost > self.budget_tokens:
            self.left_out.append(LeftOut(part=part, memory_id=memory.memory_id, tokens=cost))
            return False
        self.tokens += cost
        return True


def build_prompt(
    *,
    system: str,
    client_system: str,
    window: Sequence[Memory],
    replay: Sequence[Memory],
    notes: Sequence[Memory],
    neighbors: Sequence[Neighbor] = (),
    question: str,
    asked_at: datetime,
    budget_tokens: int,
    count: CountTokens,
) -> BuiltPrompt:
    """Put a prompt together.

    ``window`` is oldest first, the others best first; ``count`` gives the tokens of a text. The result's ``tokens``
    exceeds ``budget_tokens`` only when the system text and the question alone do.
    """
    fixed = _fixed(system, client_system, asked_at)
    room = _Room(budget_tokens, 2 * _MESSAGE_OVERHEAD_TOKENS + count(fixed) + count(question))

    kept_window: list[Memory] = []
    for turn in reversed(window):
        # Behind one that did not fit there would be a gap.
        if room.takes("window", turn, _exchange_cost(turn, count), closed=bool(room.left_out)):
            kept_window.insert(0, turn)
    kept_replay = [memory for memory in replay if room.takes("replay", memory, _exchange_cost(memory, count))]

    kept_notes: list[Memory] = []
    heading = count(_HEADING)
    for memory in notes:
        if room.takes("summary", memory, _note_cost(memory, count) + (0 if kept_notes else heading)):
            kept_notes.append(memory)

    replayed = {memory.memory_id for memory in kept_replay}
    kept_neighbors = [
        neighbor
        for neighbor in neighbors
        if room.takes(
            "neighbour",
            neighbor.memory,
            _exchange_cost(neighbor.memory, count),
            closed=neighbor.of not in replayed,
        )
    ]
    came_along = {neighbor.memory.memory_id for neighbor in kept_neighbors}
    needed = [memory for memory in kept_notes if memory.memory_id not in came_along]
    room.tokens -= sum(_note_cost(memory, count) for memory in kept_notes if memory.memory_id in came_along)
    room.tokens -= heading if kept_notes and not needed else 0

    messages = laid_out(
        system=system,
        client_system=client_system,
        window=kept_window,
        replay=kept_replay,
        notes=needed,
        neighbors=kept_neighbors,
        question=question,
        asked_at=asked_at,
    )
    left_out = tuple(item for item in room.left_out if item.memory_id not in came_along)
    return BuiltPrompt(messages, kept_window, kept_replay, needed, kept_neighbors, left_out, room.tokens)


def laid_out(
    *,
    system: str,
    client_system: str,
    window: Sequence[Memory],
    replay: Sequence[Memory],
    notes: Sequence[Memory],
    neighbors: Sequence[Neighbor],
    question: str,
    asked_at: datetime,
    layout: str = LAYOUT,
) -> list[Message]:
    """Return the messages of a prompt whose parts are settled, in one of :data:`LAYOUTS`."""
    fixed = _fixed(system, client_system, asked_at if layout == LAYOUT else None)
    messages = [{"role": "system", "content": _with_notes(fixed, notes)}]
    if layout == FIRST_LAYOUT:
        for memory in sorted(replay, key=lambda memory: memory.position):
            messages += _exchange(f"[{memory.date}] {memory.user}", memory.assistant)
        for turn in window:
            messages += _exchange(turn.user, turn.assistant)
    else:
        shown = [memory for block in blocks(replay, neighbors) for memory in block]
        for memory in (*shown, *window):
            messages += _exchange(_dated(memory), memory.assistant)
    return [*messages, {"role": "user", "content": question}]


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
    asked_at: datetime,
) -> list[str]:
    """Return the texts whose tokens :func:`build_prompt` will ask for, so that they can be counted ahead.

    Neighbors are known too late for that, and are estimated.
    """
    texts = [_fixed(system, client_system, asked_at), question, _HEADING]
    texts += [text for memory in (*window, *replay) for text in (_dated(memory), memory.assistant)]
    return texts + [f"{_note(memory)}\n" for memory in notes]


def _fixed(system: str, client_system: str, asked_at: datetime | None) -> str:
    today = f"Today is {day(asked_at)}." if asked_at is not None else ""
    return "\n\n".join(part for part in (system.strip(), today, client_system.strip()) if part)


def _note(memory: Memory) -> str:
    return f"- ({memory.date}) {memory.note}"


def _dated(memory: Memory) -> str:
    return f"[{memory.date}] {memory.user or _NO_TEXT}"


def _with_notes(fixed: str, notes: Sequence[Memory]) -> str:
    if not notes:
        return fixed
    # By age, so that the model reads what happened in its order; which ones are here was decided by their rank.
    lines = [_note(memory) for memory in sorted(notes, key=lambda memory: memory.position)]
    return "\n".join((f"{fixed}\n\n{_NOTES_HEADING}", *lines))


def _exchange(user: str, assistant: str) -> list[Message]:
    return [{"role": "user", "content": user or _NO_TEXT}, {"role": "assistant", "content": assistant or _NO_TEXT}]


def _exchange_cost(memory: Memory, count: CountTokens) -> int:
    return 2 * _MESSAGE_OVERHEAD_TOKENS + count(_dated(memory)) + count(memory.assistant)


def _note_cost(memory: Memory, count: CountTokens) -> int:
    return count(f"{_note(memory)}\n")
