"""The state of a browser tab between two runs of the script: user, conversation, what is shown and what is streaming.

It is only a copy: the service's ledger is the truth, and `open` reads from it. It does not use Streamlit, so that the
effect of each button can be read and tested without a page.
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
# The model name in a request if the service named none; the service always answers with its own model.
UNNAMED_MODEL = "default"


def new_conversation_id() -> str:
    """A new, unique conversation id."""
    return str(uuid.uuid4())


@dataclass
class Exchange:
    """A message and its answer: streaming (`live`) or from the ledger (`stored`)."""

    key: str
    text: str
    live: LiveAnswer | None = None
    stored: AnswerSnapshot = field(default_factory=AnswerSnapshot)

    @property
    def answer(self) -> AnswerSnapshot:
        return self.live.snapshot() if self.live else self.stored


@dataclass
class PageState:
    """The state of a tab.

    `load_error` is why the conversation or the list could not be read. `timezone` is the browser's, None if unknown.
    """

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
    timezone: str | None = None
    # Messages whose turn is not yet in the ledger, kept so that leaving a conversation and returning loses none.
    unrecorded: dict[tuple[str, str], Exchange] = field(default_factory=dict)

    def default_of(self, knob: Count | Choice | Switch) -> KnobValue:
        """The initial value of a knob: the service's default if it sent a valid one, otherwise the page's."""
        default = self.model.knobs.get(knob.name) if self.model else None
        match knob:
            case Switch():
                valid = isinstance(default, bool)
            case Choice():
                valid = default in knob.options
            case Count():
                valid = isinstance(default, int) and not isinstance(default, bool) and knob.low <= default <= knob.high
        return default if valid else knob.default

    def open(self, user: str, conversation_id: str) -> None:
        """Show a conversation from the ledger. A failure sets `load_error`; the page stays usable."""
        self.user, self.conversation_id = user, conversation_id
        self.exchanges, self.cleared, self.turns_limited = [], False, False
        # Look for a streaming answer before reading the ledger: its turn is then in at least one of the two.
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
        """Start a new, empty conversation of this user."""
        if user != self.user:
            self.conversations = ()
        self.user, self.conversation_id = user, new_conversation_id()
        self.exchanges, self.cleared, self.turns_limited = [], False, False
        self.refresh_list()

    def refresh_list(self) -> None:
        """Read the user's conversations again, and the model unless it is known."""
        try:
            self.conversations = self.backend.conversations(self.user)
            self.model = self.model or self.backend.model()
            self.load_error = None
        except BackendError as error:
            self.load_error = error

    def send(self, text: str, knobs: Mapping[str, KnobValue]) -> None:
        """Ask. An answer that is still streaming is stopped, or it would race this one for the next turn."""
        self.stop()
        request = ChatRequest(
            user=self.user,
            conversation_id=self.conversation_id,
            text=text,
            model=self.model.id if self.model else UNNAMED_MODEL,
            knobs=dict(knobs),
            timezone=self.timezone,
        )
        live = LiveAnswer(self.backend, request)
        exchange = Exchange(uuid.uuid4().hex, text, live)
        self.exchanges.append(exchange)
        self.unrecorded[self.user, self.conversation_id] = exchange
        self.cleared = False
        self.messages_sent += 1
        live.start()

    def stop(self) -> None:
        """Stop the streaming answer of this conversation, if there is one."""
        for exchange in self.exchanges:
            if exchange.live is not None:
                exchange.live.stop()

    def take_back(self, key: str) -> str:
        """Remove a message from the page and return its text, to send again or edit."""
        exchange = next(exchange for exchange in self.exchanges if exchange.key == key)
        self.exchanges.remove(exchange)
        self._forget_unrecorded(exchange)
        return exchange.text

    def clear(self) -> None:
        """Empty the page and nothing else. A streaming answer is still recorded in full."""
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
