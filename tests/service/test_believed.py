"""Told A, later B, asked: B is shown, however often the question was asked before; and the ledger says what was not."""

from __future__ import annotations

from domain.events import RetrievalRecorded
from tests.service.running import Running

QUESTION = "Which town is my home in?"
OLD, NEW = "My home is in the town of Leeds.", "My home is in the town of Bristol now."


def test_the_statement_is_replayed_after_the_question_was_asked_ten_times_in_vain(service: Running, user: str) -> None:
    service.upstream.say("answer", "Noted.")
    service.tell_all([OLD, NEW], user)
    service.upstream.say("answer", "I do not know.")
    asked = service.tell_all([QUESTION] * 10, user, "asked")
    service.settle()
    answer = service.client.tell(QUESTION, user, "new", retrieve_k=3)
    assert sorted(answer.replayed) == sorted([OLD, NEW, QUESTION])
    why = {item.memory_id: item.excluded for item in service.ledger.one(RetrievalRecorded, answer).candidates}
    assert [why[memory_id] for memory_id in asked] == ["older_same_question"] * 9 + [None]
    # As they happened, so that the newest is the last that the model reads before the question.
    assert service.said() == [OLD, NEW, QUESTION, QUESTION]


def test_what_was_told_twice_is_shown_once_and_what_changed_in_between_too(service: Running, user: str) -> None:
    service.upstream.say("answer", "Noted.")
    first, between, again = service.tell_all([OLD, NEW, OLD], user)
    service.settle()
    answer = service.client.tell(QUESTION, user, "new")
    why = {item.memory_id: item.excluded for item in service.ledger.one(RetrievalRecorded, answer).candidates}
    assert why == {first: "older_near_duplicate", between: None, again: None}
    assert service.said() == [NEW, OLD, QUESTION]
