"""What a frontend asks for itself leaves nothing behind, and memory is used as a request says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from domain.events import MessagesSent, RetrievalRecorded, TurnRecorded
from frontend.backend import Backend, ChatRequest
from frontend.knobs import KNOBS
from frontend.settings import FrontendSettings
from tests.service.running import Running, chat_body, someone

FACT = "My bicycle is called Rosinante."
QUESTION = "What is my bicycle called?"
TITLE = (
    "### Task:\nGenerate a concise title summarizing the chat history.\n### Guidelines:\n- Keep it short.\n### "
    "Output:\n"
    'JSON format: { "title": "x" }\n### Chat History:\n<chat_history>\nUSER: My bicycle is called Rosinante.\n'
    "</chat_history>"
)


@pytest.fixture
def user(service: Running) -> str:
    """Someone who told one fact."""
    user = someone()
    service.tell_all([FACT], user)
    service.settle()
    return user


def recorded(service: Running, user: str) -> list[str]:
    """What this person said, as the ledger has it."""
    events = service.ledger.reader.events_after(0, 1_000_000)
    return [event.payload.user for event in events if event.user_id == user and isinstance(event.payload, TurnRecorded)]


def sent(service: Running) -> list[dict[str, Any]]:
    return list(service.upstream.calls_of("answer")[-1].body["messages"])


def assert_passed_on(service: Running, user: str, body: dict[str, Any], **headers: str) -> None:
    """The chat model gets the messages as they were sent, and the ledger gets nothing."""
    before = service.ledger.reader.head_position()
    answer = service.client.post(body, **headers)
    assert answer.status == 200, answer.body
    assert answer.text
    assert sent(service) == body["messages"]
    assert service.ledger.reader.head_position() == before
    assert recorded(service, user) == [FACT]


@pytest.mark.parametrize("stream", [False, True])
def test_a_title_is_made_without_memory(service: Running, user: str, stream: bool) -> None:
    body = {"messages": [{"role": "user", "content": TITLE}], "user": user, "stream": stream}
    assert_passed_on(service, user, body)


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({}, {"X-OPM-Task": "tags_generation"}),
        ({"metadata": {"task": "title_generation"}}, {}),
        ({"metadata": {"memory": "off"}}, {}),
        ({"metadata": {"memory": "read"}, "store": True}, {"X-OPM-Memory": "write"}),
        ({}, {"X-OPM-Memory": "off"}),
        ({}, {"X-OpenWebUI-Chat-Id": "local:socket"}),
        ({"metadata": {"conversation_id": "temporary:socket"}}, {}),
    ],
)
def test_a_request_may_say_that_it_wants_no_memory(
    service: Running, user: str, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}], "user": user, **fields}
    assert_passed_on(service, user, body, **headers)


def test_the_second_model_has_no_memory(service: Running, user: str) -> None:
    names = [model["id"] for model in service.client.get("/v1/models").json()["data"]]
    assert names == ["scripted-chat", "scripted-chat:no-memory"]
    body = {"messages": [{"role": "user", "content": QUESTION}], "user": user, "model": names[1]}
    assert_passed_on(service, user, body)
    assert service.upstream.calls_of("answer")[-1].body["model"] == "scripted-chat"


def test_a_connection_test_leaves_nothing(service: Running, user: str) -> None:
    assert_passed_on(service, user, {"messages": [{"role": "user", "content": "ping"}], "user": user})


@pytest.mark.parametrize("fields", [{"store": False}, {"metadata": {"memory": "read"}}])
def test_what_is_not_to_be_kept_still_recalls(service: Running, user: str, fields: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": QUESTION}], "user": user, **fields}
    answer = service.client.post(body)
    assert answer.status == 200, answer.body
    assert any("Rosinante" in message["content"] for message in sent(service))
    assert recorded(service, user) == [FACT]


def test_what_is_to_be_written_only_recalls_nothing(service: Running, user: str) -> None:
    answer = service.client.ask(QUESTION, user, "another", memory="write")
    assert answer.status == 200, answer.body
    assert not any("Rosinante" in message["content"] for message in sent(service))
    assert recorded(service, user) == [FACT, QUESTION]


def test_a_mode_that_there_is_not_is_named(service: Running, user: str) -> None:
    answer = service.client.ask(QUESTION, user, memory="sometimes")
    assert (answer.status, answer.error["param"]) == (400, "metadata.memory")
    assert "on, read, write or off" in answer.error["message"]


def test_a_person_who_asks_about_such_a_prompt_is_remembered(service: Running, user: str) -> None:
    asked = f"{TITLE}\n\nWhy does my chat send this?"
    service.client.tell(asked, user, "another")
    assert recorded(service, user) == [FACT, asked]


def test_what_is_written_on_the_page_is_a_persons_whatever_it_is(service: Running, user: str) -> None:
    backend = Backend(FrontendSettings(backend_url=service.client.base_url))

    async def write(text: str) -> None:
        request = ChatRequest(user, "another", text, "scripted-chat", {knob.name: knob.default for knob in KNOBS})
        assert [piece async for piece in backend.chat(request) if piece.chunk.turn is not None]

    for text in (TITLE, "ping"):
        asyncio.run(write(text))
    assert recorded(service, user) == [FACT, TITLE, "ping"]


def test_memory_is_searched_by_what_was_asked_and_the_record_keeps_both(service: Running, user: str) -> None:
    message = (
        "### Task:\nRespond to the user query using the provided context.\n\n<context>\n"
        f'<source id="1">{"All about gardens. " * 200}</source>\n</context>\n\n{QUESTION}'
    )
    answer = service.client.post(chat_body(message, user, "another"))
    assert answer.status == 200, answer.body
    assert service.ledger.one(RetrievalRecorded, answer).query == QUESTION
    assert service.ledger.one(TurnRecorded, answer).user == QUESTION
    assert service.ledger.one(MessagesSent, answer).messages == ({"role": "user", "content": message},)
    assert sent(service)[-1]["content"] == message
    assert answer.replayed == [FACT]
