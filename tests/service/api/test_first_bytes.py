"""A client of a stream that waits hears that somebody is at work, and whatever follows is as it would be without."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import pytest

from domain.events import TurnFailed, TurnRecorded
from frontend.backend import Backend, ChatRequest
from frontend.backend_errors import (
    BackendError,
    BadRequestError,
    ChatModelDownError,
    ChatModelSlowError,
    TooBusyError,
)
from frontend.knobs import KNOBS
from frontend.settings import FrontendSettings
from service.api import connection
from service.turn_recorder import DISCONNECTED
from tests.service.running import Client, Running, chat_body, events_of, running, until
from tests.upstream import UNTIL_RELEASED, Fault, Kind, ScriptedUpstream

DOG = "Bruno is a dog."
QUESTION = "Tell me about Bruno."
COMMENT = ": working"
BEFORE_S = 1.0
"""The first bytes come within a second; a busy machine gets another one."""


@pytest.fixture
def told(service: Running, user: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user with a memory, so that the gate is asked; comments follow each other quickly."""
    service.client.tell(DOG, user, "before")
    service.settle()
    service.upstream.forget_calls()
    monkeypatch.setattr(connection, "SILENCE_S", 0.2)
    return user


@contextmanager
def asked(service: Running, user: str, **more: Any) -> Iterator[httpx2.Response]:
    body = chat_body(QUESTION, user, stream=True, **more)
    with service.client.http.stream("POST", "/v1/chat/completions", json=body) as response:
        yield response


def lines_of(response: httpx2.Response) -> Iterator[str]:
    return (line for line in response.iter_lines() if line)


@pytest.mark.parametrize("kind", ["embed", "gate", "rerank", "answer"])
def test_comments_come_while_a_turn_is_being_prepared(service: Running, told: str, kind: Kind) -> None:
    more = [f"{DOG} {n}" for n in range(3)]
    service.tell_all(more, told, "more")
    service.settle()
    service.upstream.forget_calls()
    service.upstream.fail(kind, Fault(hang_s=UNTIL_RELEASED))
    asked_at = time.monotonic()
    with asked(service, told, retrieve_k=1) as response:
        lines = lines_of(response)
        assert next(lines) == COMMENT
        assert time.monotonic() - asked_at < connection.FIRST_BYTES_S + BEFORE_S
        assert [next(lines), next(lines)] == [COMMENT, COMMENT]
        assert service.upstream.in_flight(kind) == 1
        service.upstream.release()
        data = [line for line in lines if line != COMMENT]
    assert response.status_code == 200
    assert all(line.startswith("data: ") for line in data)
    assert data[-1] == "data: [DONE]"
    # The first event is as it would have been at once.
    assert {"retrieved", "memory_status"} <= json.loads(data[0][6:]).keys()
    assert service.ledger.all(TurnRecorded, told)[0].user == QUESTION


def test_a_quick_turn_has_no_comments(service: Running, told: str) -> None:
    with asked(service, told) as response:
        assert not [line for line in lines_of(response) if not line.startswith("data: ")]


def test_comments_come_while_the_model_is_silent_between_two_words(service: Running, told: str) -> None:
    service.upstream.fail("answer", Fault(content="One two three.", hang_s=UNTIL_RELEASED, after_chunks=2))
    with asked(service, told) as response:
        lines = lines_of(response)
        before = list(iter(lines.__next__, COMMENT))
        service.upstream.release()
        after = [line for line in lines if line != COMMENT]
    said = "".join(json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in before)
    assert said == "One two"
    assert after[-1] == "data: [DONE]"
    assert service.ledger.all(TurnRecorded, told)[0].assistant == "One two three."


def test_a_failure_after_a_comment_is_an_error_event(service: Running, told: str) -> None:
    service.upstream.fail("gate", Fault(hang_s=connection.FIRST_BYTES_S + 0.2))
    service.upstream.fail("answer", Fault(status=500))
    with asked(service, told) as response:
        first, *rest = lines_of(response)
    assert (response.status_code, first) == (200, COMMENT)
    [failure] = [json.loads(line[6:]) for line in rest if line != COMMENT]
    assert set(failure["error"]) == {"message", "type", "param", "code"}
    assert (failure["error"]["type"], failure["error"]["code"]) == ("upstream_error", "upstream_failed")
    [failed] = service.ledger.all(TurnFailed, told)
    assert (failed.user, failed.status) == (QUESTION, 502)
    assert response.headers["x-request-id"] in service.log()


@pytest.mark.parametrize("kind", ["embed", "gate", "answer"])
def test_a_client_that_leaves_during_the_comments_ends_the_turn(service: Running, told: str, kind: Kind) -> None:
    service.upstream.fail(kind, Fault(hang_s=UNTIL_RELEASED))
    with asked(service, told) as response:
        lines = lines_of(response)
        assert [next(lines), next(lines)] == [COMMENT, COMMENT]
    [call] = service.upstream.wait_for(kind, ended=True)
    assert call.cancelled
    until("the end is recorded", lambda: service.ledger.all(TurnFailed, told))
    [failed] = service.ledger.all(TurnFailed, told)
    assert (failed.user, failed.partial_assistant, failed.code) == (QUESTION, "", DISCONNECTED)
    assert not service.ledger.all(TurnRecorded, told)
    assert service.client.tell("Hello.", told).memory("turn")["turn_id"] == 1


def test_a_client_that_leaves_in_a_silence_keeps_what_was_said(service: Running, told: str) -> None:
    service.upstream.fail("answer", Fault(content="One two three.", hang_s=UNTIL_RELEASED, after_chunks=2))
    with asked(service, told) as response:
        next(line for line in lines_of(response) if line == COMMENT)
    until("the turn is recorded", lambda: service.ledger.all(TurnRecorded, told))
    [turn] = service.ledger.all(TurnRecorded, told)
    assert (turn.assistant, turn.finish_reason) == ("One two", DISCONNECTED)


def client_of(client: Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="-", max_retries=0)


def test_openais_client_reads_on(service: Running, told: str) -> None:
    service.upstream.say("answer", "Bruno barks.")
    service.upstream.fail("gate", Fault(hang_s=connection.FIRST_BYTES_S + 0.5))
    with client_of(service.client) as client:
        stream = client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": QUESTION}], user=told, stream=True
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == "Bruno barks."
    assert service.upstream.calls_of("gate")[-1].status == 200


def test_openais_client_raises_a_failure_after_a_comment(service: Running, told: str) -> None:
    service.upstream.fail("gate", Fault(hang_s=connection.FIRST_BYTES_S + 0.5))
    service.upstream.fail("answer", Fault(status=500))
    with client_of(service.client) as client:
        stream = client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": QUESTION}], user=told, stream=True
        )
        with pytest.raises(openai.APIError, match="the chat endpoint"):
            list(stream)


def test_many_silent_streams_end_with_their_clients(
    upstream: ScriptedUpstream, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SILENCE_S", 0.05)
    with running(upstream, tmp_path) as service:
        upstream.fail_always("answer", Fault(hang_s=UNTIL_RELEASED))
        for number in range(10):
            with asked(service, f"user-{number}") as response:
                assert next(lines_of(response)) == COMMENT
        until("all are recorded", lambda: upstream.in_flight("answer") == 0)
        upstream.heal()
        with asked(service, "user-0") as response:
            assert list(events_of(response))[-1] is None


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=500), ChatModelDownError),
        (Fault(status=408), ChatModelSlowError),
        (Fault(status=429), TooBusyError),
        (Fault(status=400), BadRequestError),
    ],
)
def test_the_page_names_a_failure_after_a_comment_as_it_would_have_before(
    service: Running, told: str, fault: Fault, kind: type[BackendError]
) -> None:
    service.upstream.fail("gate", Fault(hang_s=connection.FIRST_BYTES_S + 0.2))
    service.upstream.fail("answer", fault)
    backend = Backend(FrontendSettings(backend_url=service.client.base_url))
    question = ChatRequest(told, "c", QUESTION, "any", {knob.name: knob.default for knob in KNOBS})

    async def ask() -> None:
        async for _ in backend.chat(question):
            pass

    with pytest.raises(kind) as raised:
        asyncio.run(ask())
    assert raised.value.said.startswith("the chat endpoint")
