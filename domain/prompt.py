"""The messages sent to the chat model, in a named layout, within a token budget. Pure.

Layout ``system-replay-window-5`` is one system message, the replayed exchanges, the recent window, and the question.
The system message comes first and is the only one, because several chat templates reject any other. It holds the chat
prompt, the day of the question, the client's own system text and the summaries. Each replayed exchange is shown in one
block with its neighbors. Every memory carries its date, so that the model understands "yesterday" in it, and the day of
the question says how long ago that was. Days are those of the zone of the question, and a memory of the same day
carries the time of day too. A memory without a summary yet is shown as the beginning and the end of its exchange.

Layout ``system-window-notes-2`` is one system message, the recent window, and one message that holds everything that is
remembered, as notes in the order of time, and after them the question. Small models read what stands beside the
question, and continue turns rather than believe the newest of them. A note takes no more than the same memory as turns
does, so the budget is shared alike.

Layout ``prefix-window-notes-1`` is that with the day beside the notes. All that changes from turn to turn stands in the
message of the question, and the window loses whole blocks of turns, not one turn each time. So a prompt begins as the
one before did, and an endpoint that caches prefixes reads little of it again. What memory leaves does not extend the
window.

Summaries and notes are quoted, and all that is recalled is inert, see :mod:`domain.stored_text`. In layout 4 and the
first one with notes they stand as they were said. The window does so in every layout: a client would send it so.

In layout 3 and before, memories carry dates in UTC, and such a memory is shown as its whole exchange. Layout 2 does not
name the day of the question; layout 1 has no neighbors and no dates in the window.

How the budget is shared:

1. The system text and the question are always sent. The rest is for the recent window and for memory.
2. The window takes up to half of the rest, newest turn first and without a gap. Its newest turn may take three
   quarters, and is shortened to that where it is longer. So memory has at least a quarter.
3. Memory takes what the window leaves, less the lines that stand around it. Where the summaries of all memories to
   replay fit, that much is kept for them, and the best are shown whole in what is left. Then come the other summaries,
   then the neighbors.
4. The window goes on, further back, in what memory leaves, past turns that are shown already.

What does not fit is reported. A memory that is shown as a neighbor needs no summary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from domain.chain import canonical, digest
from domain.client_messages import (
    ClientTurn,
    Message,
    WindowTurn,
    beginning_with,
    text_of,
    without_bytes,
)
from domain.events import LeftOut, PromptPart, PromptShares, Shortened
from domain.excerpt import excerpt
from domain.memory import Memory, day
from domain.neighbors import Neighbor, blocks
from domain.stored_text import inert, inert_memory, until

CountTokens = Callable[[str], int]

LAYOUT = "system-replay-window-5"
FOURTH_LAYOUT = "system-replay-window-4"
THIRD_LAYOUT = "system-replay-window-3"
SECOND_LAYOUT = "system-replay-window-2"
FIRST_LAYOUT = "system-replay-window-1"
NOTES_LAYOUT = "system-window-notes-2"
FIRST_NOTES_LAYOUT = "system-window-notes-1"
PREFIX_LAYOUT = "prefix-window-notes-1"
LAYOUTS = (
    FIRST_LAYOUT,
    SECOND_LAYOUT,
    THIRD_LAYOUT,
    FOURTH_LAYOUT,
    FIRST_NOTES_LAYOUT,
    LAYOUT,
    NOTES_LAYOUT,
    PREFIX_LAYOUT,
)
"""New prompts use the last three. Prompts of the older ones can be reconstructed."""
_QUOTING = frozenset({LAYOUT, NOTES_LAYOUT, PREFIX_LAYOUT})
_NOTES = frozenset({FIRST_NOTES_LAYOUT, NOTES_LAYOUT, PREFIX_LAYOUT})
_NAMING_THE_DAY = frozenset({THIRD_LAYOUT, FOURTH_LAYOUT, LAYOUT, FIRST_NOTES_LAYOUT, NOTES_LAYOUT})
_DATED_IN_THE_ZONE = frozenset({FOURTH_LAYOUT, LAYOUT, *_NOTES})
_MESSAGE_OVERHEAD_TOKENS = 8
"""Upper bound of what a chat template adds around a message: role, start and end marks."""
_MEDIA_TOKENS = 1_000
"""What an image or a recording takes, more or less: no endpoint says it before it is asked."""
_NO_TEXT = "(no text)"
_SUMMARIES_HEADING = "What you remember"
_HEADING = "\n".join(("\n", *until(_SUMMARIES_HEADING, [], ""), ""))
"""What stands around summaries and notes; the line that ends them is always so long."""
_WINDOW_SHARE = 1 / 2
_NEWEST_SHARE = 3 / 4
_FAR_TOO_LONG = 4
_SHORTENED_CHARS_MIN = 64
"""Of each side of an exchange: less would not be understood."""
_LINE_CHARS_MAX = 400
"""Of an exchange that stands for a summary not yet written."""


@dataclass(frozen=True, slots=True)
class FittedWindow:
    """The turns of the recent window that are shown for certain, oldest first, and older ones, if there is room.

    ``shortened`` says how many characters of the newest turn are shown, None where it is shown whole.
    """

    shown: list[WindowTurn]
    older: list[WindowTurn] = field(default_factory=list)
    shortened: Shortened | None = None

    @property
    def as_it_fits(self) -> list[WindowTurn]:
        """The shown turns, the newest one shortened where it has to be."""
        newest = self.shown[-1] if self.shown else None
        if self.shortened is None or not isinstance(newest, Memory):
            return list(self.shown)
        return [*self.shown[:-1], as_shortened(newest, self.shortened.chars)]


@dataclass(frozen=True, slots=True)
class BuiltPrompt:
    """The messages, the memories in them in the order given, and what was left out.

    ``summarised`` begins with those that were to be replayed and did not fit whole.
    """

    messages: list[Message]
    window: list[WindowTurn]
    replayed: list[Memory]
    summarised: list[Memory]
    neighbors: list[Neighbor]
    left_out: tuple[LeftOut, ...]
    shares: PromptShares
    shortened: tuple[Shortened, ...] = ()

    @property
    def tokens(self) -> int:
        return self.shares.fixed + self.shares.window + self.shares.memory

    @property
    def can_be_shorter(self) -> bool:
        """Whether there is more in it than what is always sent."""
        return self.shares.window + self.shares.memory > 0


@dataclass(slots=True)
class _Room:
    """The tokens that are left, and what did not fit."""

    tokens: int
    left_out: list[LeftOut] = field(default_factory=list)

    def takes(self, part: PromptPart, memory: WindowTurn, cost: int, *, closed: bool = False, keep: int = 0) -> bool:
        """Take an item in if that leaves ``keep`` tokens; otherwise record it as left out."""
        if closed or cost + keep > self.tokens:
            self.left_out.append(LeftOut(part=part, memory_id=memory.memory_id, tokens=cost))
            return False
        self.tokens -= cost
        return True


def fixed_tokens(
    system: str, client_system: str, asked: Sequence[Message], asked_at: datetime, count: CountTokens
) -> int:
    """Return what the system text takes and what is asked, which are always sent."""
    system_tokens = _MESSAGE_OVERHEAD_TOKENS + count(_fixed(system, client_system, asked_at))
    return system_tokens + sum(_message_cost(message, count) for message in asked)


def asked_alone(question: str) -> list[Message]:
    """Return what is asked where that is one text."""
    return [{"role": "user", "content": question}]


def fit_window(
    window: Sequence[WindowTurn], asked_at: datetime, rest_tokens: int, count: CountTokens, block: int | None = None
) -> FittedWindow:
    """Return what is shown for certain of the recent window (oldest first); ``rest_tokens`` is for it and memory.

    The newest turn always is. One that the client sent is not shortened: it may hold what cannot be. With ``block``
    the first turn shown is the first of a block of so many.
    """
    if not window:
        return FittedWindow([])
    *older, newest = window
    as_it_fits: WindowTurn = newest
    shortened = None
    if isinstance(newest, Memory):
        as_it_fits, shortened = _shortened(newest, asked_at, int(rest_tokens * _NEWEST_SHARE), count)
    shown = [newest]
    room = int(rest_tokens * _WINDOW_SHARE) - _exchange_cost(as_it_fits, asked_at, count)
    while older and (cost := _exchange_cost(older[-1], asked_at, count)) <= room:
        room -= cost
        shown.insert(0, older.pop())
    while block is not None and len(shown) > 1 and _number(shown[0], len(older)) % block:
        older.append(shown.pop(0))
    return FittedWindow(shown, older, shortened)


def beginning_with_a_block(window: Sequence[Memory], block: int) -> list[Memory]:
    """Return the newest ``block`` turns, and those before them in the block that they began in."""
    if not window:
        return []
    first = max(window[-1].turn_id - block, 0) // block * block
    return [turn for turn in window if turn.turn_id > first]


def _number(turn: WindowTurn, at: int) -> int:
    """Return how many turns of the conversation come before one that stands at a place of the window."""
    return turn.turn_id - 1 if isinstance(turn, Memory) else at


def build_prompt(
    *,
    system: str,
    client_system: str,
    window: FittedWindow,
    replay: Sequence[Memory],
    summarised: Sequence[Memory],
    neighbors: Sequence[Neighbor] = (),
    asked: Sequence[Message],
    asked_at: datetime,
    budget_tokens: int,
    count: CountTokens,
    layout: str = LAYOUT,
) -> BuiltPrompt:
    """Build the prompt in one of the layouts for new prompts.

    ``asked`` are the question's message and all that the client sent after it. ``replay`` and ``summarised`` are best
    first. ``count`` returns the tokens of a text. The result's ``tokens``
    exceeds ``budget_tokens`` only when the system text, the question and the shortest form of the newest turn do.
    """
    fixed = fixed_tokens(system, client_system, asked, asked_at, count)
    turns = window.as_it_fits
    window_tokens = sum(_exchange_cost(turn, asked_at, count) for turn in turns)
    # It stands above notes whether they are whole or not, and all layouts choose alike.
    heading = count(_HEADING) if replay or summarised else 0
    room = _Room(budget_tokens - fixed - window_tokens - heading)

    whole, lines = _whole_or_line(replay, asked_at, room, count)
    for memory in summarised:
        if room.takes("summary", memory, _summary_cost(memory, asked_at, count)):
            lines.append(memory)
    replayed = {memory.memory_id for memory in whole}
    beside = [
        neighbor
        for neighbor in neighbors
        if room.takes(
            "neighbour",
            neighbor.memory,
            _exchange_cost(neighbor.memory, asked_at, count),
            closed=neighbor.of not in replayed,
        )
    ]
    shown_beside = {neighbor.memory.memory_id for neighbor in beside}
    needed = [memory for memory in lines if memory.memory_id not in shown_beside]
    room.tokens += sum(_summary_cost(memory, asked_at, count) for memory in lines if memory.memory_id in shown_beside)
    room.tokens += 0 if whole or needed else heading
    memory_tokens = budget_tokens - fixed - window_tokens - room.tokens

    shown = replayed | shown_beside | {memory.memory_id for memory in needed}
    closed = layout == PREFIX_LAYOUT
    for turn in reversed(window.older):
        # What a client sent stays one piece, even where a part of it was recalled too.
        if turn.memory_id in shown and isinstance(turn, Memory):
            continue
        cost = _exchange_cost(turn, asked_at, count)
        # Once a turn does not fit, older ones would leave a gap.
        closed = not room.takes("window", turn, cost, closed=closed)
        if not closed:
            turns.insert(0, turn)
            window_tokens += cost

    messages = laid_out(
        system=system,
        client_system=client_system,
        window=turns,
        replay=whole,
        summarised=needed,
        neighbors=beside,
        asked=asked,
        asked_at=asked_at,
        layout=layout,
    )
    return BuiltPrompt(
        messages=messages,
        window=turns,
        replayed=whole,
        summarised=needed,
        neighbors=beside,
        left_out=tuple(item for item in room.left_out if item.memory_id not in shown_beside),
        shares=PromptShares(fixed=fixed, window=window_tokens, memory=memory_tokens),
        shortened=_shown_shortened(window.shortened, (*turns, *whole, *needed, *(item.memory for item in beside))),
    )


def _shown_shortened(newest: Shortened | None, shown: Sequence[WindowTurn]) -> tuple[Shortened, ...]:
    """Return what is shown shortened: the newest turn where it had to be, and what was read so."""
    found = {
        memory.memory_id: Shortened(memory_id=memory.memory_id, chars=memory.cut_chars)
        for memory in shown
        if isinstance(memory, Memory) and memory.cut_chars is not None
    }
    return tuple({**found, **({newest.memory_id: newest} if newest is not None else {})}.values())


def _whole_or_line(
    replay: Sequence[Memory], asked_at: datetime, room: _Room, count: CountTokens
) -> tuple[list[Memory], list[Memory]]:
    """Return the memories that are shown whole, and those of which there is room for the summary only."""
    whole: list[Memory] = []
    lines: list[Memory] = []
    costs = [(_exchange_cost(memory, asked_at, count), _summary_cost(memory, asked_at, count)) for memory in replay]
    all_fit = sum(min(cost) for cost in costs) <= room.tokens
    for at, (memory, (exchange, line)) in enumerate(zip(replay, costs, strict=True), start=1):
        later = costs[at:] if all_fit else []
        # Later ones come whole or as one line, whichever takes less.
        if room.takes("replay", memory, exchange, keep=sum(min(cost) for cost in later)):
            whole.append(memory)
        elif line <= room.tokens:
            room.tokens -= line
            lines.append(memory)
    return whole, lines


def _shortened(
    turn: Memory, asked_at: datetime, tokens_max: int, count: CountTokens
) -> tuple[Memory, Shortened | None]:
    """Return a turn that takes at most ``tokens_max``, and how many characters of it that are; None for all of it."""
    chars = max(len(turn.user), len(turn.assistant))
    short = turn
    while (cost := _exchange_cost(short, asked_at, count)) > tokens_max and chars > _SHORTENED_CHARS_MIN:
        # Of a text that is far too long not much can stay: counting it again and again would take long.
        fitting = chars * max(tokens_max, 0) // cost if cost > _FAR_TOO_LONG * max(tokens_max, 1) else chars
        chars = max(min(chars * 3 // 4, 2 * fitting), _SHORTENED_CHARS_MIN)
        short = as_shortened(turn, chars)
    return short, Shortened(memory_id=turn.memory_id, chars=chars) if short is not turn else None


def as_shortened(turn: Memory, chars: int) -> Memory:
    """Return a turn of which the question and the answer are shortened to ``chars`` characters each."""
    return replace(turn, user=excerpt(turn.user, chars), assistant=excerpt(turn.assistant, chars))


def laid_out(
    *,
    system: str,
    client_system: str,
    window: Sequence[WindowTurn],
    replay: Sequence[Memory],
    summarised: Sequence[Memory],
    neighbors: Sequence[Neighbor],
    asked: Sequence[Message],
    asked_at: datetime,
    layout: str = LAYOUT,
) -> list[Message]:
    """Return the messages of a prompt from its parts, in one of :data:`LAYOUTS`.

    Days are those of the zone of ``asked_at``.
    """
    fixed = _fixed(system, client_system, asked_at if layout in _NAMING_THE_DAY else None)
    dated_from = asked_at if layout in _DATED_IN_THE_ZONE else None
    quoting = layout in _QUOTING
    if quoting:
        replay, summarised = list(map(inert_memory, replay)), list(map(inert_memory, summarised))
        neighbors = [replace(neighbor, memory=inert_memory(neighbor.memory)) for neighbor in neighbors]
    if layout in _NOTES:
        whole = [*replay, *(neighbor.memory for neighbor in neighbors)]
        messages: list[Message] = [{"role": "system", "content": fixed}]
        for turn in window:
            messages += _turn_messages(turn, dated_from)
        question, *rest = asked
        after_notes = _after_notes(question, whole, summarised, asked_at, quoting=quoting)
        if layout == PREFIX_LAYOUT:
            after_notes = beginning_with(f"{_today(asked_at)}\n\n", after_notes)
        return [*messages, after_notes, *rest]
    question_text = text_of(asked[0]) if quoting and summarised else None
    messages = [{"role": "system", "content": _with_summaries(fixed, summarised, dated_from, question_text)}]
    if layout == FIRST_LAYOUT:
        for memory in sorted(replay, key=lambda memory: memory.position):
            messages += _exchange(f"[{memory.date}] {memory.user}", memory.assistant)
        for turn in window:
            messages += _exchange(turn.user, turn.assistant)
    else:
        shown = [memory for block in blocks(replay, neighbors) for memory in block]
        for turn in (*shown, *window):
            messages += _turn_messages(turn, dated_from)
    return [*messages, *asked]


def messages_hash(messages: Sequence[Message]) -> str:
    """Return the hash that shows whether reconstructed messages are the ones that were sent, see `without_bytes`."""
    return digest(canonical(without_bytes(messages)))


def _fixed(system: str, client_system: str, asked_at: datetime | None) -> str:
    today = _today(asked_at) if asked_at is not None else ""
    return "\n\n".join(part for part in (system.strip(), today, client_system.strip()) if part)


def _today(asked_at: datetime) -> str:
    return f"Today is {day(asked_at)}."


def _date(memory: Memory, asked_at: datetime | None) -> str:
    return memory.dated(asked_at) if asked_at is not None else memory.date


def _summary_line(memory: Memory, asked_at: datetime | None) -> str:
    if asked_at is None:
        return f"- ({memory.date}) {memory.line}"
    said = memory.line if memory.summary else excerpt(memory.line, _LINE_CHARS_MAX)
    return f"- ({memory.dated(asked_at)}) {said}"


def _dated(memory: Memory, asked_at: datetime | None) -> str:
    return f"[{_date(memory, asked_at)}] {memory.user or _NO_TEXT}"


def _with_summaries(fixed: str, summarised: Sequence[Memory], asked_at: datetime | None, question: str | None) -> str:
    if not summarised:
        return fixed
    # Rank decided which ones are here; the model reads them in the order in which they happened.
    lines = [_summary_line(memory, asked_at) for memory in sorted(summarised, key=lambda memory: memory.position)]
    return "\n".join((f"{fixed}\n", *_remembered(lines, question)))


def _remembered(lines: Sequence[str], question: str | None) -> list[str]:
    """Return lines below their heading, quoted where the question is given."""
    return until(_SUMMARIES_HEADING, lines, question) if question is not None else [f"{_SUMMARIES_HEADING}:", *lines]


def _after_notes(
    question: Message, whole: Sequence[Memory], summarised: Sequence[Memory], asked_at: datetime, *, quoting: bool
) -> Message:
    notes = {memory.position: _note(memory, asked_at) for memory in whole}
    notes |= {memory.position: _summary_line(memory, asked_at) for memory in summarised}
    if not notes:
        return question
    lines = [notes[position] for position in sorted(notes)]
    said = "\n".join((*_remembered(lines, text_of(question) if quoting else None), "", ""))
    return beginning_with(said, question)


def _note(memory: Memory, asked_at: datetime) -> str:
    return f"- ({memory.dated(asked_at)}) {memory.user or _NO_TEXT} — {memory.assistant or _NO_TEXT}"


def _exchange(user: str, assistant: str) -> list[Message]:
    return [{"role": "user", "content": user or _NO_TEXT}, {"role": "assistant", "content": assistant or _NO_TEXT}]


def _turn_messages(turn: WindowTurn, dated_from: datetime | None) -> list[Message]:
    if isinstance(turn, ClientTurn):
        return list(turn.messages)
    return _exchange(_dated(turn, dated_from), turn.assistant)


def _message_cost(message: Message, count: CountTokens) -> int:
    content = message.get("content")
    media = sum(isinstance(part, dict) and "text" not in part for part in content) if isinstance(content, list) else 0
    calls = [message[name] for name in ("tool_calls", "function_call") if message.get(name)]
    called = sum(count(canonical(call)) for call in calls)
    return _MESSAGE_OVERHEAD_TOKENS + count(text_of(message)) + called + media * _MEDIA_TOKENS


def _exchange_cost(memory: WindowTurn, asked_at: datetime, count: CountTokens) -> int:
    if isinstance(memory, ClientTurn):
        return sum(_message_cost(message, count) for message in memory.messages)
    said = inert(_dated(memory, asked_at)), inert(memory.assistant)
    return 2 * _MESSAGE_OVERHEAD_TOKENS + sum(map(count, said))


def _summary_cost(memory: Memory, asked_at: datetime, count: CountTokens) -> int:
    return count(f"{inert(_summary_line(memory, asked_at))}\n")
