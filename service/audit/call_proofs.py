"""Make the prompts of an answer's model calls again from events, and prove that they are those that were sent.

Each event names what its model was shown, so nothing is counted or chosen again. The recorded hash is of the messages
as they went out, in the dialect of the endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from domain.client_messages import Message
from domain.decisions import DECISION_LAYOUTS, gate_messages, rerank_messages
from domain.events import (
    DecisionAsked,
    Event,
    GateDecided,
    RerankDecided,
    RetrievalRecorded,
    SummaryFailed,
    SummaryRecorded,
    ToolsCalled,
    TurnFailed,
    TurnRecorded,
)
from domain.excerpt import excerpt
from domain.memory import Memory
from domain.model_call import ModelCall
from domain.prompt import messages_hash
from domain.prompt_reconstruction import ReconstructedPrompt, reconstructed_prompt
from domain.rerank_scores import request_hash, rerank_request
from domain.summary_request import summary_messages
from domain.temporal.zones import in_zone, recorded_zone
from service.dialect import Dialect

PromptText = Callable[[str, str], str | None]
"""(name, version) -> the text of a prompt, None where the ledger does not hold it."""
_NOT_RECORDED = "the ledger does not say what was sent: it is of an earlier version"
_NEWER_LAYOUT = "how its candidates were quoted is of a newer version of this code"
_SAME, _DIFFERS = "the same as sent, by its hash", "it DIFFERS from what was sent, which has the hash {}"


def answer_prompt(
    turn: TurnRecorded | TurnFailed | ToolsCalled,
    prompt_text: PromptText,
    memories: Mapping[str, Memory],
    events: Mapping[str, Event],
) -> ReconstructedPrompt | None:
    """Return the prompt of the answer itself, ``events`` as for the reconstruction; None where no model was asked."""
    if isinstance(turn, TurnFailed) and turn.prompt is None:
        return None
    system = prompt_text("CHAT_SYSTEM", turn.prompt.system_version) if turn.prompt is not None else None
    rebuilt = reconstructed_prompt(turn, system, memories, events)
    # Only the answer's own hash existed before calls were recorded.
    return _proved(rebuilt.messages, turn.call) if turn.call is not None and rebuilt.messages else rebuilt


def gate_prompt(
    gate: GateDecided,
    retrieval: RetrievalRecorded,
    asked_ts: datetime,
    prompt_text: PromptText,
    memories: Mapping[str, Memory],
) -> ReconstructedPrompt | None:
    """Return the gate's prompt; None where no model was asked."""
    if gate.model is None:
        return None
    if gate.asked is None or gate.call is None or gate.prompt_version is None:
        return _not_possible(_NOT_RECORDED)
    if gate.asked.layout not in DECISION_LAYOUTS:
        return _not_possible(_NEWER_LAYOUT)
    system = prompt_text("GATE_SYSTEM", gate.prompt_version)
    shown, lost = _shown([verdict.memory_id for verdict in gate.verdicts], gate.asked, memories)
    if system is None or lost:
        return _lost(system, lost)
    question = excerpt(retrieval.query, gate.asked.question_chars)
    asked_at = _asked_at(asked_ts, retrieval)
    messages = gate_messages(system, question, asked_at, shown, gate.asked.line_chars, gate.asked.layout)
    return _proved(messages, gate.call)


def rerank_prompt(
    rerank: RerankDecided,
    gate: GateDecided,
    retrieval: RetrievalRecorded,
    asked_ts: datetime,
    prompt_text: PromptText,
    memories: Mapping[str, Memory],
) -> ReconstructedPrompt | None:
    """Return the rerank's prompt, for a rerank endpoint one message with its query and documents."""
    if rerank.model is None:
        return None
    if rerank.asked is None or rerank.call is None:
        return _not_possible(_NOT_RECORDED)
    shown, lost = _shown([verdict.memory_id for verdict in gate.verdicts if verdict.keep], rerank.asked, memories)
    asked_at = _asked_at(asked_ts, retrieval)
    if rerank.strategy == "endpoint":
        if lost:
            return _lost("", lost)
        request = rerank_request(rerank.model, retrieval.query, asked_at, shown)
        messages = [{"role": "user", "content": "\n".join([request["query"], *request["documents"]])}]
        return _compared(messages, request_hash(request), rerank.call)
    if rerank.asked.layout not in DECISION_LAYOUTS:
        return _not_possible(_NEWER_LAYOUT)
    system = prompt_text("RERANK_SYSTEM", rerank.prompt_version) if rerank.prompt_version is not None else None
    if system is None or lost:
        return _lost(system, lost)
    question = excerpt(retrieval.query, rerank.asked.question_chars)
    asked = rerank.asked
    messages = rerank_messages(system, question, asked_at, shown, rerank.retrieve_k, asked.line_chars, asked.layout)
    return _proved(messages, rerank.call)


def summary_prompt(
    said: SummaryRecorded | SummaryFailed, turn: TurnRecorded, prompt_text: PromptText
) -> ReconstructedPrompt | None:
    """Return the prompt of a turn's summary; None for a summary that was imported."""
    if said.call is None or said.asked is None:
        return _not_possible(_NOT_RECORDED) if turn.imported_from is None else None
    system = prompt_text("SUMMARY_SYSTEM", said.prompt_version)
    return _lost(system) if system is None else _proved(summary_messages(system, turn, said.asked), said.call)


def _asked_at(ts: datetime, retrieval: RetrievalRecorded) -> datetime:
    return in_zone(ts, recorded_zone(retrieval.knobs.get("timezone") or "UTC"))


def _shown(
    ids: Sequence[str], asked: DecisionAsked, memories: Mapping[str, Memory]
) -> tuple[list[Memory], tuple[str, ...]]:
    """Return the memories that were shown, and the ids of those among them that the ledger does not hold."""
    shown = ids[: asked.candidates]
    lost = tuple(memory_id for memory_id in shown if memory_id not in memories)
    return [memories[memory_id] for memory_id in shown if memory_id in memories], lost


def _proved(messages: list[Message], call: ModelCall) -> ReconstructedPrompt:
    try:
        dialect = Dialect(**call.dialect)
    except TypeError:
        return _not_possible("its endpoint's dialect is of a newer version of this code")
    sent = dialect.put({**call.request, "messages": messages})["messages"]
    return _compared(sent, messages_hash(sent), call)


def _compared(messages: list[Message], made_hash: str, call: ModelCall) -> ReconstructedPrompt:
    if made_hash == call.messages_hash:
        return ReconstructedPrompt(messages, "same_as_sent", _SAME)
    return ReconstructedPrompt(messages, "differs", _DIFFERS.format(call.messages_hash))


def _lost(system: str | None, lost: tuple[str, ...] = ()) -> ReconstructedPrompt:
    what = "the text of its system prompt" if system is None else "all of the memories that it was shown"
    return ReconstructedPrompt([], "not_possible", f"the ledger does not hold {what}", lost)


def _not_possible(note: str) -> ReconstructedPrompt:
    return ReconstructedPrompt([], "not_possible", note)
