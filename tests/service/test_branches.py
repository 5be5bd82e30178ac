"""Regenerate, edit, go back: what the client's history leaves behind is out of its conversation, and back with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from domain.events import RetrievalRecorded, TurnRecorded, TurnRestored, TurnSuperseded
from domain.identity import StreamId
from tests.service.running import Answer, Running, running, someone, until
from tests.service.test_client_messages import Chat, assert_proved, conversation_of
from tests.upstream import Fault, ScriptedUpstream


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("storage")
    with ScriptedUpstream() as upstream, running(upstream, folder, conversation_without_id="new") as service:
        yield service


@pytest.fixture
def user() -> str:
    return someone()


def visible(service: Running, user: str, conversation: str) -> list[str]:
    """The questions of a conversation as its window and its list have them."""
    window = service.ledger.reader.recent_turns(StreamId(user, conversation), 50)
    listed = service.client.get("/v1/turns", user=user, conversation_id=conversation).json()["data"]
    assert [turn["memory_id"] for turn in listed] == [memory.memory_id for memory in window]
    return [memory.user for memory in window]


def superseded(service: Running, user: str, conversation: str) -> list[tuple[int, str]]:
    return [(said.turn_id, said.reason) for said in service.ledger.all(TurnSuperseded, user, conversation)]


@pytest.mark.parametrize("named", [None, "c"])
def test_an_answer_is_regenerated(service: Running, user: str, named: str | None) -> None:
    chat = Chat(service, user, **({"metadata": {"conversation_id": named}} if named else {}))
    for question in ("My cat is called Miso.", "She eats tuna.", "She sleeps in the sink."):
        last = chat.say(question)
    conversation = conversation_of(last)
    chat.messages = chat.messages[:-2]
    again = chat.say("She sleeps in the sink.")
    assert conversation_of(again) == conversation
    assert visible(service, user, conversation) == [
        "My cat is called Miso.",
        "She eats tuna.",
        "She sleeps in the sink.",
    ]
    assert superseded(service, user, conversation) == [(3, "regenerated")]
    found = {
        candidate.memory_id: candidate.excluded for candidate in service.ledger.one(RetrievalRecorded, again).candidates
    }
    assert found[last.memory("turn")["memory_id"]] == "left_behind"
    turn = service.ledger.one(TurnRecorded, again)
    assert turn.follows == turn.window[-1]
    assert_proved(service, last, again)


def test_a_question_is_edited_and_the_old_branch_comes_back(service: Running, user: str) -> None:
    chat = Chat(service, user)
    for question in ("I plan a trip.", "To Lisbon.", "For a week."):
        first = chat.say(question)
    conversation = conversation_of(first)
    lisbon = list(chat.messages)
    chat.messages = chat.messages[:2]
    chat.say("To Porto.")
    porto = list(chat.messages)
    assert visible(service, user, conversation) == ["I plan a trip.", "To Porto."]
    assert superseded(service, user, conversation) == [(2, "edited"), (3, "edited")]
    elsewhere = service.client.tell("Which trip do I plan, to Lisbon or to Porto?", user, "other", use_gate=False)
    assert "To Porto." in elsewhere.replayed
    assert "To Lisbon." not in elsewhere.replayed

    chat.messages = lisbon
    chat.say("With my aunt.")
    assert visible(service, user, conversation) == ["I plan a trip.", "To Lisbon.", "For a week.", "With my aunt."]
    assert [said.turn_id for said in service.ledger.all(TurnRestored, user, conversation)] == [2, 3]
    chat.messages = porto
    chat.say("With my uncle.")
    assert visible(service, user, conversation) == ["I plan a trip.", "To Porto.", "With my uncle."]
    service.settle()
    elsewhere = service.client.tell("Do I travel with my aunt or with my uncle?", user, "other", use_gate=False)
    assert "With my uncle." in elsewhere.replayed
    assert "With my aunt." not in elsewhere.replayed


def test_a_history_with_its_beginning_cut_off_leaves_nothing_behind(service: Running, user: str) -> None:
    chat = Chat(service, user)
    for number in range(5):
        last = chat.say(f"Remark number {number}.")
    chat.messages = chat.messages[-4:]
    chat.say("And on.")
    assert superseded(service, user, conversation_of(last)) == []


def test_a_foreign_history_leaves_nothing_behind(service: Running, user: str) -> None:
    service.client.tell("I like tea.", user, "c")
    chat = Chat(service, user, metadata={"conversation_id": "c"})
    chat.messages = [{"role": "user", "content": "Example?"}, {"role": "assistant", "content": "Example."}]
    chat.say("And biscuits.")
    assert superseded(service, user, "c") == []
    assert visible(service, user, "c") == ["I like tea.", "And biscuits."]


def test_what_was_said_twice_is_not_taken_for_the_other(service: Running, user: str) -> None:
    service.upstream.say("answer", "Noted.")
    chat = Chat(service, user)
    for question in ("Count with me.", "Go on.", "Three.", "Go on.", "Five."):
        last = chat.say(question)
    conversation = conversation_of(last)
    chat.say("Go on.")
    assert superseded(service, user, conversation) == []
    chat.messages = chat.messages[:4]
    chat.say("Stop.")
    service.upstream.heal()
    assert visible(service, user, conversation) == ["Count with me.", "Go on.", "Stop."]


def test_a_stopped_answer_of_which_the_client_has_less_goes_on(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(content="One two three four five", finish_reason="length"))
    chat = Chat(service, user, metadata={"conversation_id": "c"})
    chat.say("Count.")
    chat.messages[-1]["content"] = "One two"
    answer = chat.say("And further?")
    assert superseded(service, user, "c") == []
    assert service.messages()[1:3] == [("user", "Count."), ("assistant", "One two")]
    turn = service.ledger.one(TurnRecorded, answer)
    assert turn.follows == turn.window[-1]
    assert_proved(service, answer)


def test_a_client_that_always_sends_its_history_begins_again(service: Running, user: str) -> None:
    def say(*messages: dict[str, Any]) -> Answer:
        body = {"messages": [*messages], "user": user}
        return service.client.post(body, **{"X-OpenWebUI-Chat-Id": "chat 1", "User-Agent": "frontend"})

    question = {"role": "user", "content": "I have a boat."}
    first = say(question)
    second = say(question)
    assert visible(service, user, "chat 1") == ["I have a boat."]
    assert superseded(service, user, "chat 1") == [(1, "regenerated")]
    assert service.messages()[1:] == [("user", "I have a boat.")]
    assert_proved(service, first, second)


def test_another_client_on_the_same_conversation_takes_its_window_from_the_ledger(service: Running, user: str) -> None:
    chat = Chat(service, user, metadata={"conversation_id": "c"})
    chat.say("I have a boat.")
    chat.say("It is red.")
    body = {"messages": [{"role": "user", "content": "And mine."}], "user": user, "metadata": {"conversation_id": "c"}}
    service.client.post(body, **{"User-Agent": "the page"})
    assert visible(service, user, "c") == ["I have a boat.", "It is red.", "And mine."]


def test_a_failed_regeneration_leaves_the_answer_where_it_was(service: Running, user: str) -> None:
    chat = Chat(service, user, metadata={"conversation_id": "c"})
    chat.say("I have a boat.")
    chat.say("It is red.")
    service.upstream.fail("answer", Fault(status=500))
    messages = [*chat.messages[:2], {"role": "user", "content": "It is red."}]
    assert service.client.post({"messages": messages, "user": user, "metadata": {"conversation_id": "c"}}).status >= 500
    assert superseded(service, user, "c") == []


def test_the_beginning_of_an_answer_that_goes_on_replaces_it(service: Running, user: str) -> None:
    """A frontend's *Continue*: its history ends with the answer so far."""
    service.upstream.strict_template = False
    try:
        service.upstream.fail("answer", Fault(content="One two", finish_reason="length"), Fault(content=" three."))
        chat = Chat(service, user, metadata={"conversation_id": "c"})
        chat.say("Count.")
        service.client.post({"messages": chat.messages, "user": user, "metadata": {"conversation_id": "c"}})
    finally:
        service.upstream.strict_template = True
    window = service.ledger.reader.recent_turns(StreamId(user, "c"), 9)
    assert [(memory.user, memory.assistant) for memory in window] == [("Count.", "One two three.")]


def test_a_retry_takes_the_place_of_an_answer_that_was_cut(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(content="One two three four five six", chunk_delay_s=0.8))
    body = {"messages": [{"role": "user", "content": "Count."}], "user": user, "metadata": {"conversation_id": "c"}}
    with pytest.raises(Exception, match="timed out"):
        service.client.http.post(
            "/v1/chat/completions", json=body, headers={"x-stainless-retry-count": "0"}, timeout=2.5
        )
    until("the first try is recorded", lambda: service.ledger.all(TurnRecorded, user))
    again = service.client.post(body, **{"x-stainless-retry-count": "1"})
    assert again.status == 200
    assert len(service.ledger.all(TurnRecorded, user)) == 2
    assert superseded(service, user, "c") == [(1, "retried")]
    assert len(visible(service, user, "c")) == 1
