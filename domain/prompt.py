"""The messages sent to the chat model, in a named layout, within a token budget. Pure.

Layout ``system-replay-window-4`` is one system message, the replayed exchanges, the recent window, and the question.
The system message comes first and is the only one, because several chat templates reject any other. It holds the chat
prompt, the day of the question, the client's own system text and the summaries. Each replayed exchange is shown in one
block with its neighbors. Every memory carries its date, so that the model understands "yesterday" in it, and the day of
the question says how long ago that was. Days are those of the zone of the question, and a memory of the same
day carries the time of day too. In layout 3 and before, memories carry dates in UTC. Layout 2 does not name the day of
the question; layout 1 has no neighbors and no dates in the window.

The system text and the question are always sent. The rest of the budget goes first to the window, newest turn first and
without a gap, then to the replayed memories, the summaries and the neighbors, best memory first. What does not fit is
left out whole and reported. A memory that is shown as a neighbor needs no summary.
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

LAYOUT = "system-replay-window-4"
THIRD_LAYOUT = "system-replay-window-3"
SECOND_LAYOUT = "system-replay-window-2"
FIRST_LAYOUT = "system-replay-window-1"
LAYOUTS = (FIRST_LAYOUT, SECOND_LAYOUT, THIRD_LAYOUT, LAYOUT)
"""New prompts use the newest. Prompts of the older ones can be reconstructed."""
_MESSAGE_OVERHEAD_TOKENS = 8
"""Upper bound of what a chat template adds around a message: role, start and end marks."""
_NO_TEXT = "(no text)"
_SUMMARIES_HEADING = "What you remember:"
_HEADING = f"\n\n{_SUMMARIES_HEADING}\n"


@dataclass(frozen=True, slots=True)
class BuiltPrompt:
    """The messages, the memories in them in the order given, and what was left out."""

    messages: list[Message]
    window: list[Memory]
    replayed: list[Memory]
    summarised: list[Memory]
    neighbors: list[Neighbor]
    left_out: tuple[LeftOut, ...]
    tokens: int


@dataclass(slots=True)
class _Room:
    """The tokens used so far of a budget, and what did not fit."""

    budget_tokens: int
    tokens: int
    left_out: list[LeftOut] = field(default_factory=list)

    def takes(self, part: PromptPart, memory: Memory, cost: int, *, closed: bool = False) -> bool:
        """Take an item in if there is room; otherwise record it as left out."""
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
    summarised: Sequence[Memory],
    neighbors: Sequence[Neighbor] = (),
    question: str,
    asked_at: datetime,
    budget_tokens: int,
    count: CountTokens,
) -> BuiltPrompt:
    """Build the prompt.

    ``window`` is oldest first, the others best first. ``count`` returns the tokens of a text. The result's ``tokens``
    exceeds ``budget_tokens`` only when the system text and the question alone do.
    """
    fixed = _fixed(system, client_system, asked_at)
    room = _Room(budget_tokens, 2 * _MESSAGE_OVERHEAD_TOKENS + count(fixed) + count(question))

    kept_window: list[Memory] = []
    for turn in reversed(window):
        # Once a turn does not fit, older ones would leave a gap.
        if room.takes("window", turn, _exchange_cost(turn, asked_at, count), closed=bool(room.left_out)):
            kept_window.insert(0, turn)
    kept_replay = [memory for memory in replay if room.takes("replay", memory, _exchange_cost(memory, asked_at, count))]

    kept_summarised: list[Memory] = []
    heading = count(_HEADING)
    for memory in summarised:
        if room.takes("summary", memory, _summary_cost(memory, asked_at, count) + (0 if kept_summarised else heading)):
            kept_summarised.append(memory)

    replayed = {memory.memory_id for memory in kept_replay}
    kept_neighbors = [
        neighbor
        for neighbor in neighbors
        if room.takes(
            "neighbour",
            neighbor.memory,
            _exchange_cost(neighbor.memory, asked_at, count),
            closed=neighbor.of not in replayed,
        )
    ]
    shown_beside = {neighbor.memory.memory_id for neighbor in kept_neighbors}
    needed = [memory for memory in kept_summarised if memory.memory_id not in shown_beside]
    room.tokens -= sum(
        _summary_cost(memory, asked_at, count) for memory in kept_summarised if memory.memory_id in shown_beside
    )
    room.tokens -= heading if kept_summarised and not needed else 0

    messages = laid_out(
        system=system,
        client_system=client_system,
        window=kept_window,
        replay=kept_replay,
        summarised=needed,
        neighbors=kept_neighbors,
        question=question,
        asked_at=asked_at,
    )
    left_out = tuple(item for item in room.left_out if item.memory_id not in shown_beside)
    return BuiltPrompt(messages, kept_window, kept_replay, needed, kept_neighbors, left_out, room.tokens)


def laid_out(
    *,
    system: str,
    client_system: str,
    window: Sequence[Memory],
    replay: Sequence[Memory],
    summarised: Sequence[Memory],
    neighbors: Sequence[Neighbor],
    question: str,
    asked_at: datetime,
    layout: str = LAYOUT,
) -> list[Message]:
    """Return the messages of a prompt from its parts, in one of :data:`LAYOUTS`.

    Days are those of the zone of ``asked_at``.
    """
    fixed = _fixed(system, client_system, asked_at if layout in {THIRD_LAYOUT, LAYOUT} else None)
    dated_from = asked_at if layout == LAYOUT else None
    messages = [{"role": "system", "content": _with_summaries(fixed, summarised, dated_from)}]
    if layout == FIRST_LAYOUT:
        for memory in sorted(replay, key=lambda memory: memory.position):
            messages += _exchange(f"[{memory.date}] {memory.user}", memory.assistant)
        for turn in window:
            messages += _exchange(turn.user, turn.assistant)
    else:
        shown = [memory for block in blocks(replay, neighbors) for memory in block]
        for memory in (*shown, *window):
            messages += _exchange(_dated(memory, dated_from), memory.assistant)
    return [*messages, {"role": "user", "content": question}]


def messages_hash(messages: Sequence[Message]) -> str:
    """Return the hash that shows whether reconstructed messages are the ones that were sent."""
    return digest(canonical(list(messages)))


def _fixed(system: str, client_system: str, asked_at: datetime | None) -> str:
    today = f"Today is {day(asked_at)}." if asked_at is not None else ""
    return "\n\n".join(part for part in (system.strip(), today, client_system.strip()) if part)


def _date(memory: Memory, asked_at: datetime | None) -> str:
    return memory.dated(asked_at) if asked_at is not None else memory.date


def _summary_line(memory: Memory, asked_at: datetime | None) -> str:
    return f"- ({_date(memory, asked_at)}) {memory.line}"


def _dated(memory: Memory, asked_at: datetime | None) -> str:
    return f"[{_date(memory, asked_at)}] {memory.user or _NO_TEXT}"


def _with_summaries(fixed: str, summarised: Sequence[Memory], asked_at: datetime | None) -> str:
    if not summarised:
        return fixed
    # Rank decided which ones are here; the model reads them in the order in which they happened.
    lines = [_summary_line(memory, asked_at) for memory in sorted(summarised, key=lambda memory: memory.position)]
    return "\n".join((f"{fixed}\n\n{_SUMMARIES_HEADING}", *lines))


def _exchange(user: str, assistant: str) -> list[Message]:
    return [{"role": "user", "content": user or _NO_TEXT}, {"role": "assistant", "content": assistant or _NO_TEXT}]


def _exchange_cost(memory: Memory, asked_at: datetime, count: CountTokens) -> int:
    return 2 * _MESSAGE_OVERHEAD_TOKENS + count(_dated(memory, asked_at)) + count(memory.assistant)


def _summary_cost(memory: Memory, asked_at: datetime, count: CountTokens) -> int:
    return count(f"{_summary_line(memory, asked_at)}\n")
