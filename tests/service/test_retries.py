"""A client that asks again, because it heard nothing, gets its answer; one turn is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest

from domain.events import TurnRecorded
from tests.service.running import Answer, Running, running, someone, until
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

RETRY = "x-stainless-retry-count"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with ScriptedUpstream() as upstream, running(upstream, tmp_path_factory.mktemp("storage")) as service:
        yield service


@pytest.fixture
def user() -> str:
    return someone()


def body(user: str, question: str = "My cat is called Miso.", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"messages": messages, "user": user, "metadata": {"conversation_id": "c"}, **fields}


def turns(service: Running, user: str) -> list[TurnRecorded]:
    return service.ledger.all(TurnRecorded, user)


@pytest.mark.parametrize("stream", [False, True])
def test_fifty_repeats_at_once_are_one_turn(service: Running, user: str, stream: bool) -> None:
    service.upstream.fail("answer", Fault(hang_s=0.5))
    key = {"idempotency-key": f"{user}-1"}

    def ask(_number: int) -> Answer:
        with httpx2.Client(base_url=service.client.base_url, timeout=60, trust_env=False):
            return service.client.post(body(user, stream=stream), **key)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len({answer.id for answer in answers}) == 1
    assert {answer.memory("turn")["turn_id"] for answer in answers} == {1}
    assert len(turns(service, user)) == 1


@pytest.mark.parametrize("again", [{"idempotency-key": "one"}, {RETRY: "1"}])
def test_a_repeat_after_the_answer_gets_the_recorded_one(service: Running, user: str, again: dict[str, str]) -> None:
    first = again if "idempotency-key" in again else {RETRY: "0"}
    said = service.client.post(body(user), **first)
    told = service.client.post(body(user), **again)
    streamed = service.client.post(body(user, stream=True), **again)
    assert told.text == said.text
    assert (told.id, told.memory("turn")) == (said.id, said.memory("turn"))
    assert (streamed.id, streamed.text) == (said.id, said.text)
    assert len(turns(service, user)) == 1


def test_the_same_question_again_is_another_turn(service: Running, user: str) -> None:
    for headers in ({}, {}, {RETRY: "0"}, {RETRY: "0"}, {"idempotency-key": "a"}, {"idempotency-key": "b"}):
        service.client.post(body(user), **headers)
    assert len(turns(service, user)) == 6


def test_a_key_with_another_body_is_another_request(service: Running, user: str) -> None:
    one = service.client.post(body(user), **{"idempotency-key": "k"})
    other = service.client.post(body(user, "Something else."), **{"idempotency-key": "k"})
    assert one.id != other.id


def test_somebody_else_s_key_is_not_mine(service: Running, user: str) -> None:
    one = service.client.post(body(user), **{"idempotency-key": "k"})
    other = service.client.post(body(f"{user}-2"), **{"idempotency-key": "k"})
    assert one.id != other.id


def test_a_failure_is_asked_again(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(status=500))
    assert service.client.post(body(user), **{RETRY: "0"}).status >= 500
    assert service.client.post(body(user), **{RETRY: "1"}).status == 200
    assert len(turns(service, user)) == 1


def test_the_openai_library_that_gives_up_and_asks_again(service: Running, user: str) -> None:
    """Its own retries: the first try times out, the second gets the answer."""
    client = openai.OpenAI(base_url=f"{service.client.base_url}/v1", api_key="x", timeout=1.0, max_retries=2)
    service.upstream.fail("answer", Fault(hang_s=2.0))
    answer = client.chat.completions.create(
        model="any", messages=[{"role": "user", "content": "Hi there."}], user=user, metadata={"conversation_id": "c"}
    )
    assert answer.choices[0].message.content
    assert len(turns(service, user)) == 1


def test_the_last_to_leave_ends_the_answer(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(hang_s=UNTIL_RELEASED))
    with ThreadPoolExecutor(2) as pool:

        def ask(timeout_s: float) -> str:
            with httpx2.Client(base_url=service.client.base_url, timeout=timeout_s, trust_env=False) as http:
                try:
                    sent = http.post("/v1/chat/completions", json=body(user), headers={"idempotency-key": "left"})
                    return str(sent.status_code)
                except httpx2.TimeoutException:
                    return "gave up"

        before = len(service.upstream.calls_of("answer"))
        assert set(pool.map(ask, (0.6, 1.0))) == {"gave up"}
    until("the upstream hears of it", lambda: service.upstream.calls_of("answer")[before].cancelled)
    assert len(service.upstream.calls_of("answer")) == before + 1
