"""What one browser tab holds between two runs of the script: who, where, what is shown, what is coming.

It is the page's own copy and nothing more: the truth is the service's ledger, and `open` reads it from there.
Holds no Streamlit, so that what the buttons do can be read (and tested) without a page.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from frontend.backend import Backend, ChatRequest
from frontend.backend_errors import BackendError
from frontend.knobs import Choice, Count, KnobValue, Switch
from frontend.live_answer import AnswerSnapshot, LiveAnswer
from frontend.wire import ConversationInfo, ModelInfo, StoredTurn, TurnRef

DEFAULT_USER = "anonymous"
# The name a request carries where the service named no model; the service answers with its own in any case.
UNNAMED_MODEL = "default"


def new_conversation_id() -> str:
    """An id that no other conversation has."""
    return str(uuid.uuid4())


@dataclass
class Exchange:
    """A message and its answer: one that is coming (`live`) or one from the ledger (`stored`)."""

    key: str
    text: str
    live: LiveAnswer | None = None
    stored: AnswerSnapshot = field(default_factory=AnswerSnapshot)

    @property
    def answer(self) -> AnswerSnapshot:
        return self.live.snapshot() if self.live else self.stored


@dataclass
class PageState:
    """The state of a tab. `load_error` says why the conversation or the list could not be read."""

    backend: Backend
    user: str
    conversation_id: str
    exchanges: list[Exchange] = field(default_factory=list)
    conversations: tuple[ConversationInfo, ...] = ()
    model: ModelInfo | None = None
    load_error: BackendError | None = None
    cleared: bool = False
    turns_limited: bool = False
    messages_sent: int = 0
    # Messages whose turn is not (yet) in the ledger: leaving a conversation and coming back loses none.
    unrecorded: dict[tuple[str, str], Exchange] = field(default_factory=dict)

    def default_of(self, knob: Count | Choice | Switch) -> KnobValue:
        """Where a knob stands before anybody has touched it: the service's own default, if it told one that fits."""
        told = self.model.knobs.get(knob.name) if self.model else None
        match knob:
            case Switch():
                fits = isinstance(told, bool)
            case Choice():
                fits = told in knob.options
            case Count():
                fits = isinstance(told, int) and not isinstance(told, bool) and knob.low <= told <= knob.high
        return told if fits else knob.default

    def open(self, user: str, conversation_id: str) -> None:
        """Show a conversation from the ledger. A failure is in `load_error`, and the page stays usable."""
        self.user, self.conversation_id = user, conversation_id
        self.exchanges, self.cleared, self.turns_limited = [], False, False
        # What is still coming is asked for before the ledger is read: its turn is then in one place or both.
        waiting = self._still_unrecorded()
        try:
            turns = self.backend.turns(user, conversation_id)
            self.exchanges = [_from_ledger(conversation_id, turn) for turn in turns]
            self.turns_limited = bool(turns) and turns[0].turn_id > 1
            self.load_error = None
        except BackendError as error:
            self.load_error = error
        if waiting is not None:
            self.exchanges.append(waiting)
        if self.load_error is None:
            self.refresh_list()

    def begin(self, user: str) -> None:
        """A new, empty conversation of this user."""
        if user != self.user:
            self.conversations = ()
        self.user, self.conversation_id = user, new_conversation_id()
        self.exchanges, self.cleared, self.turns_limited = [], False, False
        self.refresh_list()

    def refresh_list(self) -> None:
        """Read the user's conversations, and once the model's name, anew."""
        try:
            self.conversations = self.backend.conversations(self.user)
            self.model = self.model or self.backend.model()
            self.load_error = None
        except BackendError as error:
            self.load_error = error

    def send(self, text: str, knobs: Mapping[str, KnobValue]) -> None:
        """Ask. An answer still coming is stopped: it would otherwise race this one for the next turn."""
        self.stop()
        request = ChatRequest(
            user=self.user,
            conversation_id=self.conversation_id,
            text=text,
            model=self.model.id if self.model else UNNAMED_MODEL,
            knobs=dict(knobs),
        )
        live = LiveAnswer(self.backend, request)
        exchange = Exchange(uuid.uuid4().hex, text, live)
        self.exchanges.append(exchange)
        self.unrecorded[self.user, self.conversation_id] = exchange
        self.cleared = False
        self.messages_sent += 1
        live.start()

    def stop(self) -> None:
        """Hang up on the answer that is coming in this conversation, if there is one."""
        for exchange in self.exchanges:
            if exchange.live is not None:
                exchange.live.stop()

    def take_back(self, key: str) -> str:
        """Remove a message from the page, and give its text, to be sent again or edited."""
        exchange = next(exchange for exchange in self.exchanges if exchange.key == key)
        self.exchanges.remove(exchange)
        self._forget_unrecorded(exchange)
        return exchange.text

    def clear(self) -> None:
        """Empty the page and touch nothing else. An answer that is coming is recorded in full, unseen."""
        for exchange in self.exchanges:
            self._forget_unrecorded(exchange)
        self.exchanges, self.cleared, self.turns_limited = [], True, False

    def _still_unrecorded(self) -> Exchange | None:
        waiting = self.unrecorded.get((self.user, self.conversation_id))
        if waiting is not None and waiting.answer.state in ("done", "stopped"):
            self._forget_unrecorded(waiting)
            return None
        return waiting

    def _forget_unrecorded(self, exchange: Exchange) -> None:
        self.unrecorded = {where: kept for where, kept in self.unrecorded.items() if kept is not exchange}


def _from_ledger(conversation_id: str, turn: StoredTurn) -> Exchange:
    answer = AnswerSnapshot(
        state="done",
        text=turn.assistant,
        retrieved=turn.retrieved,
        memory_status=turn.memory_status,
        turn=TurnRef(conversation_id=conversation_id, turn_id=turn.turn_id, memory_id=turn.memory_id),
        finish_reason=turn.finish_reason,
    )
    return Exchange(turn.memory_id, turn.user, stored=answer)
