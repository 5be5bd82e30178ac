"""A client that hangs up ends the work for it, and what was said until then is kept."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from domain.errors import LedgerWriteFailed
from domain.events import TurnFailed, TurnRecorded
from domain.prompt import messages_hash
from service.turn_recorder import DISCONNECTED, TurnRecorder
from tests.service.running import Running, chat_body, events_of, until
from tests.upstream import UNTIL_RELEASED, Fault, Kind

QUESTION = "Tell me about Bruno."


@contextmanager
def sent_and_waiting(service: Running, body: dict[str, object]) -> Iterator[socket.socket]:
    """Send a request and leave the connection open without reading."""
    host, _, port = service.client.base_url.removeprefix("http://").partition(":")
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + data)
        yield connection


def end_of(service: Running, user: str) -> tuple[str, str]:
    """Wait for the one turn of a user to end, well or not; return its question and how it ended."""
    until("the end is recorded", lambda: service.ledger.stream(user))
    turns = [(turn.user, turn.finish_reason) for turn in service.ledger.all(TurnRecorded, user)]
    [end] = turns + [(failed.user, failed.code) for failed in service.ledger.all(TurnFailed, user)]
    return end


def test_in_mid_stream_what_was_said_is_recorded_and_the_upstream_call_cancelled(service: Running, user: str) -> None:
    service.upstream.say("answer", "One two three four.")
    service.upstream.fail("answer", Fault(hang_s=UNTIL_RELEASED, after_chunks=2))
    with service.client.http.stream(
        "POST", "/v1/chat/completions", json=chat_body(QUESTION, user, stream=True)
    ) as response:
        said = ""
        for event in events_of(response):
            assert event is not None
            said += event["choices"][0]["delta"].get("content", "")
            if said == "One two":
                break
    [call] = service.upstream.wait_for("answer", ended=True)
    assert call.cancelled
    until("the turn is recorded", lambda: service.ledger.all(TurnRecorded, user))
    [turn] = service.ledger.all(TurnRecorded, user)
    assert (turn.user, turn.assistant, turn.finish_reason) == (QUESTION, "One two", DISCONNECTED)
    assert not service.ledger.all(TurnFailed, user)
    # It is a turn like any other.
    assert service.client.tell("Go on.", user).memory("turn")["turn_id"] == 2
    assert ("assistant", "One two") in service.messages()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["embed", "gate", "answer"])
def test_before_the_first_word_the_question_is_kept(service: Running, user: str, stream: bool, kind: Kind) -> None:
    service.client.tell("Bruno is a dog.", user, "before")
    service.settle()
    service.upstream.forget_calls()
    service.upstream.fail(kind, Fault(hang_s=UNTIL_RELEASED))
    with sent_and_waiting(service, chat_body(QUESTION, user, stream=stream)):
        service.upstream.wait_for(kind)
    [call] = service.upstream.wait_for(kind, ended=True)
    assert call.cancelled
    until("the end is recorded", lambda: service.ledger.stream(user))
    [failed] = service.ledger.all(TurnFailed, user)
    assert (failed.user, failed.partial_assistant, failed.code) == (QUESTION, "", DISCONNECTED)
    assert not service.ledger.all(TurnRecorded, user)
    # What the chat model was asked before that is recorded too.
    assert (failed.call is not None) == (kind == "answer")
    assert failed.call is None or failed.call.messages_hash == messages_hash(call.body["messages"])


def test_without_stream_it_ends_the_same_way(service: Running, user: str) -> None:
    service.upstream.say("answer", "One two three four.")
    service.upstream.fail("answer", Fault(hang_s=UNTIL_RELEASED, after_chunks=3))
    with sent_and_waiting(service, chat_body(QUESTION, user)):
        service.upstream.wait_for("answer")
    # Whether a word had come by then is not for the test to know: either end is right, if it is recorded.
    [call] = service.upstream.wait_for("answer", ended=True)
    assert call.cancelled
    assert end_of(service, user) == (QUESTION, DISCONNECTED)


def test_a_client_that_reads_slowly_is_no_client_that_left(service: Running, user: str) -> None:
    service.upstream.say("answer", "word " * 4_000 + "end.")
    with service.client.http.stream(
        "POST", "/v1/chat/completions", json=chat_body(QUESTION, user, stream=True)
    ) as response:
        events = events_of(response)
        next(events)
        service.upstream.wait_for("answer", ended=True)
        text = "".join(c["delta"].get("content", "") for e in events if e for c in e["choices"])
    assert text.endswith("end.")
    assert service.ledger.all(TurnRecorded, user)[0].finish_reason == "stop"


def test_a_client_that_leaves_a_long_answer_unread(service: Running, user: str) -> None:
    service.upstream.say("answer", "word " * 200_000 + "end.")
    with sent_and_waiting(service, chat_body(QUESTION, user, stream=True)):
        service.upstream.wait_for("answer")
    assert end_of(service, user) == (QUESTION, DISCONNECTED)


def test_others_are_served_after_many_have_left(service: Running, user: str) -> None:
    service.upstream.fail_always("answer", Fault(hang_s=UNTIL_RELEASED))
    for number in range(1, 21):
        with sent_and_waiting(service, chat_body(QUESTION, user, stream=number % 2 == 0)):
            service.upstream.wait_for("answer", number)
    service.upstream.heal()
    until("all are recorded", lambda: len(service.ledger.all(TurnFailed, user)) == 20)
    assert service.client.tell("Hello.", user).memory("turn")["turn_id"] == 1
    assert service.upstream.in_flight("answer") == 0


def test_a_second_request_follows_on_the_same_connection(service: Running, user: str) -> None:
    with httpx2.Client(base_url=service.client.base_url, trust_env=False) as http:
        for stream in (True, False, True):
            answer = http.post("/v1/chat/completions", json=chat_body(QUESTION, user, stream=stream))
            assert answer.status_code == 200
    assert len(service.ledger.all(TurnRecorded, user)) == 3


def test_a_lost_record_of_an_answer_that_nobody_waits_for_is_logged(
    service: Running, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: object) -> None:
        raise LedgerWriteFailed("the ledger could not be written (disk full): nothing was recorded")

    monkeypatch.setattr(TurnRecorder, "interrupted", fail)
    service.upstream.fail("answer", Fault(hang_s=UNTIL_RELEASED, after_chunks=2))
    with sent_and_waiting(service, chat_body(QUESTION, user)):
        service.upstream.wait_for("answer")
    until("the loss is logged", lambda: "LedgerWriteFailed: the ledger could not be written" in service.log())
    assert QUESTION not in service.log()
