"""A client in front of the running service: what it was told, what the ledger holds, what the model was sent."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from domain.events import Event, TurnRecorded
from domain.identity import DEFAULT_CONVERSATION, DEFAULT_USER
from service.placing import forked_from
from tests.clients.client import Chats, Client, Recall, Row
from tests.clients.model import ModelWithTools
from tests.clients.recording import Exchange, RecordingProxy, Request
from tests.processes import service_process
from tests.service.running import LedgerView
from tests.upstream import Call, wire

_KEPT_BACK = {"messages", "model", "user", "metadata", "store", "stream", "stream_options", "conversation"}
_HASH = re.compile(r"(sha256 )[0-9a-f]{64}\]")


def drive(client: Client, environments: Path) -> Iterator[Row]:
    """Run a client against the service with its defaults, then compare ledger and prompts with what they should be."""
    with tempfile.TemporaryDirectory() as folder, ModelWithTools(says=client.says) as model:
        settings = {
            "STORAGE_DIR": str(Path(folder) / "storage"),
            "LLM_BASE_URL": model.base_url,
            "LLM_MODEL": model.chat_model,
            "EMB_BASE_URL": model.base_url,
            "EMB_MODEL": model.embedding_model,
            **{name.upper(): json.dumps(value) for name, value in client.settings.items()},
        }
        with service_process(settings) as service, RecordingProxy(service.base_url) as proxy:
            yield from client.run(environments, proxy, model)
            log = service.log()
        ledger = LedgerView(Path(folder) / "storage" / "ledger.sqlite3")
        try:
            events = ledger.reader.events_after(0, 1_000_000)
        finally:
            ledger.close()
        for person, chats in client.chats.items():
            found = chats_of(events, user_of(person, proxy.exchanges))
            failed = "" if sorted(found) == sorted(chats) else f"{sorted(found)} instead of {sorted(chats)}"
            yield Row(client.name, f"the ledger{f' of {person}' if person else ''}", failed)
        yield Row(client.name, "what the model was sent", "; ".join(unlike(proxy.exchanges, model.calls)))
        if client.recalls:
            failed = "; ".join(misremembered(client.recalls, proxy.exchanges, model.calls))
            yield Row(client.name, "what comes from memory", failed)
        complaints = [line for line in log.splitlines() if "ERROR" in line or "Traceback" in line]
        yield Row(client.name, "the service's log", "; ".join(complaints)[:300])


def user_of(person: str, exchanges: Sequence[Exchange | Request]) -> str:
    """Return by which id the client named a person, or whom the service takes a request for that names nobody."""
    named = {each.headers.get("x-openwebui-user-name"): each.headers.get("x-openwebui-user-id") for each in exchanges}
    return named.get(person) or person or DEFAULT_USER


def chats_of(events: Sequence[Event], user_id: str) -> Chats:
    """Return the person's words of each chat. Chats that began in the shared conversation are kept apart."""
    turns = {
        event.event_id: event for event in events if event.user_id == user_id and event.payload.type == "TurnRecorded"
    }
    hidden: dict[str, bool] = {}
    for event in events:
        if event.payload.type in {"TurnSuperseded", "TurnRestored"} and event.causation_id is not None:
            hidden[event.causation_id] = event.payload.type == "TurnSuperseded"
    chats: dict[str, list[str]] = {}
    for event_id, event in turns.items():
        turn = event.payload
        assert isinstance(turn, TurnRecorded)
        shared = event.conversation_id == DEFAULT_CONVERSATION
        conversation = forked_from(event_id) if shared else event.conversation_id
        if not hidden.get(event_id):
            chats.setdefault(conversation, []).append(_HASH.sub(r"\1...", turn.user))
    return tuple(tuple(chat) for chat in chats.values())


def unlike(exchanges: Sequence[Exchange], calls: Sequence[Call]) -> Iterator[str]:
    """Say what of the client's requests did not reach the model."""
    answers = [call for call in calls if call.kind == "answer"]
    responses: dict[str, list[str]] = {}
    for exchange in exchanges:
        if exchange.method != "POST" or exchange.status != 200:
            continue
        asks_chat = exchange.path == "/v1/chat/completions"
        wanted = _last_text(exchange.body) if asks_chat else _texts_of_input(exchange.body)[-1]
        sent = [call for call in answers if exchange.started <= call.started <= exchange.ended]
        of_it = [call for call in sent if wanted in _last_text(call.body)]
        if not of_it:
            yield f"{exchange.step}: the model was not asked"
        elif asks_chat:
            yield from (f"{exchange.step}: {said}" for said in _missing(exchange.body, of_it[-1].body))
        else:
            texts = [*responses.get(exchange.body.get("previous_response_id"), ()), *_texts_of_input(exchange.body)]
            responses[exchange.answer.id] = [*texts, exchange.answer.text]
            yield from (
                f"{exchange.step}: {said}" for said in _missing_of_response(exchange.body, texts, of_it[-1].body)
            )


def misremembered(recalls: Sequence[Recall], exchanges: Sequence[Exchange], calls: Sequence[Call]) -> Iterator[str]:
    """Say what the model was not told from memory, and what it was told and should not have been."""
    for recall in recalls:
        times = [(each.started, each.ended) for each in exchanges if each.step == recall.step]
        sent = [
            call.body
            for call in calls
            if call.kind == "answer" and any(started <= call.started <= ended for started, ended in times)
        ]
        # Of the requests of a step, the person's message is the one that came with memories.
        prompts = ["\n".join(text for _, text in wire.messages(body)) for body in sent]
        if not any(all(text in prompt for text in recall.told) for prompt in prompts):
            yield f"{recall.step}: {recall.told} is not told"
        for text in recall.untold:
            if any(text in prompt for prompt in prompts):
                yield f"{recall.step}: {text!r} is told"


def _texts_of_input(body: Mapping[str, Any]) -> list[str]:
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    texts = [
        str(item["output"]) if item.get("type") == "function_call_output" else _text(item)
        for item in items
        if "role" in item or item.get("type") == "function_call_output"
    ]
    return [text for text in texts if text]


def _missing_of_response(asked: Mapping[str, Any], texts: Sequence[str], sent: Mapping[str, Any]) -> Iterator[str]:
    """Say what the model did not get of a request to ``/v1/responses``, with the responses before it as ``texts``."""
    reached = "\n".join(text for _, text in wire.messages(sent))
    for text in (*texts, asked.get("instructions") or ""):
        if text not in reached:
            yield f"{text[:60]!r} is missing"
    offered = [tool["name"] for tool in asked.get("tools") or ()]
    if offered != [tool["function"]["name"] for tool in sent.get("tools") or ()]:
        yield f"the tools are not {offered}"
    items = asked["input"] if isinstance(asked["input"], list) else []
    images = [part["image_url"] for item in items for part in _parts(item) if part.get("type") == "input_image"]
    shown = [part["image_url"]["url"] for message in sent["messages"] for part in _parts(message)]
    if images != shown:
        yield f"of {len(images)} images the model got {len(shown)}"


def _missing(asked: Mapping[str, Any], sent: Mapping[str, Any]) -> Iterator[str]:
    for name, value in asked.items():
        if name not in _KEPT_BACK and value is not None and sent.get(name) != value:
            yield f"{name} is {sent.get(name)!r}"[:120]
    system = "\n".join(text for role, text in wire.messages(sent) if role in {"system", "developer"})
    said = [each for each in asked["messages"] if each["role"] not in {"system", "developer"}]
    reached = [each for each in sent["messages"] if each["role"] not in {"system", "developer"}][-len(said) :]
    for each in asked["messages"]:
        if each["role"] in {"system", "developer"} and _text(each) not in system:
            yield "a system text is missing"
    if [each["role"] for each in said] != [each["role"] for each in reached]:
        yield f"the roles are {[each['role'] for each in reached]}"
        return
    for each, other in zip(said, reached, strict=True):
        if _text(each) not in _text(other):
            yield f"{_text(each)[:60]!r} is {_text(other)[:60]!r}"
        for name in ("tool_calls", "tool_call_id"):
            if each.get(name) != other.get(name):
                yield f"{name} is {other.get(name)!r}"[:120]
        parts = _parts(each)
        if [part for part in parts if part not in _parts(other)]:
            yield "a part of a message is missing"


def _text(message: Mapping[str, Any]) -> str:
    return wire.messages({"messages": [message]})[0][1].strip()


def _parts(message: Mapping[str, Any]) -> list[Any]:
    content = message.get("content")
    return [part for part in content if part.get("type") != "text"] if isinstance(content, list) else []


def _last_text(body: Mapping[str, Any]) -> str:
    return _text(body["messages"][-1])
