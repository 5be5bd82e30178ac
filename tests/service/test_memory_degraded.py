"""Without the embedding endpoint a turn is answered with what words alone find in memory, never with nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from domain.events import RetrievalRecorded, TurnRecorded
from tests.service.running import Running, running, someone, until
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

DOG = "My dog is called Bruno."
QUESTION = "What is the name of my dog?"


@pytest.fixture(scope="module")
def service_settings() -> dict[str, object]:
    return {"emb_timeout_s": 2.0}


@contextmanager
def embedding_fault(service: Running, fault: Fault) -> Iterator[None]:
    service.upstream.fail_always("embed", fault)
    yield
    service.upstream.heal("embed")
    service.upstream.release()


FAULTS = [
    (Fault(close=True), "embedding_unavailable"),
    (Fault(hang_s=UNTIL_RELEASED), "embedding_unavailable"),
    (Fault(status=429, retry_after="1"), "embedding_unavailable"),
    (Fault(status=500), "embedding_unavailable"),
    (Fault(status=400), "embedding_rejected"),
    (Fault(status=401), "embedding_misfit"),
    (Fault(nan=True), "embedding_rejected"),
    (Fault(vector_length=48), "embedding_misfit"),
    (Fault(garbage=True), "embedding_misfit"),
    (Fault(malformed=True), "embedding_misfit"),
    (Fault(empty_choices=True), "embedding_misfit"),
    (Fault(null_vectors=True), "embedding_misfit"),
    (Fault(cut=True), None),
]
NAMES = ["closed", "hangs", "429", "500", "400", "401", "nan", "length", "garbage", "malformed", "empty", "null", "cut"]


@pytest.mark.parametrize(("fault", "code"), FAULTS, ids=NAMES)
def test_memory_is_searched_by_words_and_the_event_says_why(
    service: Running, user: str, fault: Fault, code: str | None
) -> None:
    service.client.tell(DOG, user, "monday")
    service.client.tell("Hello.", user, "friday", candidate_n=0)
    service.settle()
    with embedding_fault(service, fault):
        answer = service.client.tell(QUESTION, user, "friday", stream=True)
    assert DOG in answer.replayed
    assert "Bruno" in answer.text
    status = answer.memory("memory_status")
    assert status["retrieval"] == "degraded"
    assert status["mode"] == "lexical"
    assert status["code"] == service.ledger.one(RetrievalRecorded, answer).degraded_code
    assert status["notice"].startswith("Long-term memory was searched by words only: ")
    retrieval = service.ledger.one(RetrievalRecorded, answer)
    assert (retrieval.outcome, retrieval.mode) == ("degraded", "lexical")
    assert retrieval.candidates[0].lexical_rank == 1
    assert retrieval.candidates[0].dense_score is None
    assert code is None or retrieval.degraded_code == code
    assert retrieval.degraded_reason
    assert retrieval.degraded_reason in status["notice"]
    # As soon as the endpoint is well again the memory is found, that of the degraded turn included.
    healed = service.client.tell(QUESTION, user, "sunday")
    assert DOG in healed.replayed
    assert QUESTION in healed.replayed
    assert healed.memory("memory_status")["notice"] is None


def test_a_question_that_is_too_long_costs_a_refused_call_once(service: Running, user: str) -> None:
    service.client.tell(DOG, user, "monday")
    service.settle()
    long = f"Zanzibar! {QUESTION} " + "Well, well. " * 100
    service.upstream.max_input_chars = 400
    try:
        answer = service.client.tell(long, user, "friday")
        assert service.ledger.one(RetrievalRecorded, answer).outcome == "ok"
        assert service.ledger.one(TurnRecorded, answer).user == long
        service.settle()
        assert [call.status for call in service.upstream.calls_of("embed")].count(400) <= 3
        learned = service.client.get("/health/embed").json()["learned"]
        assert learned["input_length"] == "the first 128 tokens of a text, as estimated"
        service.upstream.forget_calls()
        service.client.tell(long, user, "thursday")
        service.settle()
        assert {call.status for call in service.upstream.calls_of("embed")} == {200}
        # The memory of it is embedded by its beginning, and others are not held up.
        assert long in service.client.tell("Zanzibar?", user, "sunday").replayed
        assert DOG in service.client.tell(QUESTION, user, "saturday").replayed
    finally:
        service.upstream.max_input_chars = None


def test_a_question_that_is_too_long_is_searched_by_its_beginning(service: Running, user: str) -> None:
    service.client.tell(DOG, user, "monday")
    service.settle()
    service.upstream.max_input_chars = 600
    try:
        answer = service.client.tell(f"{QUESTION} " + "Well, well. " * 300, user, "friday")
        assert DOG in answer.replayed
        assert service.ledger.one(RetrievalRecorded, answer).outcome == "ok"
    finally:
        service.upstream.max_input_chars = None


def test_a_text_without_a_finite_vector_affects_no_other(service: Running, user: str) -> None:
    other = someone()
    service.client.tell(DOG, user, "monday")
    service.upstream.nan_word = "Zanzibar"
    try:
        service.client.tell("Zanzibar is an island.", user, "tuesday")
        service.client.tell("My cat is called Minka.", other, "monday")
        service.settle()
        assert DOG in service.client.tell(QUESTION, user, "friday").replayed
        assert "Minka" in service.client.tell("What is the name of my cat?", other, "friday").text
        assert service.client.get("/health/ready").status_code == 200
    finally:
        service.upstream.nan_word = None


def test_a_corrupt_vector_cache_is_put_aside_and_memory_comes_back(
    upstream: ScriptedUpstream, tmp_path: Path, user: str
) -> None:
    with running(upstream, tmp_path) as service:
        service.client.tell(DOG, user, "monday")
        service.settle()
    noise = b"I am no database, whatever my name says. " * 500
    (tmp_path / "vectors.sqlite3").write_bytes(noise)
    shutil.rmtree(tmp_path / "users")
    with running(upstream, tmp_path) as service:
        assert DOG in service.client.tell(QUESTION, user, "friday").replayed
        assert "vectors.sqlite3 is broken" in service.log()
    assert (tmp_path / "vectors.sqlite3.broken").read_bytes() == noise


def test_an_endpoint_that_is_down_at_the_start(tmp_path: Path, user: str) -> None:
    with ScriptedUpstream() as upstream, ScriptedUpstream() as embedding:
        embedding.stop()
        with running(upstream, tmp_path, emb_base_url=embedding.base_url) as service:
            first = service.client.tell(DOG, user, "monday")
            assert service.ledger.one(RetrievalRecorded, first).degraded_code == "embedding_unavailable"
            assert service.client.get("/health/ready").status_code == 503
            embedding.start()
            until("memory works", lambda: service.client.get("/health/ready").status_code == 200)
            assert "Bruno" in service.client.tell(QUESTION, user, "friday").text


def test_an_endpoint_slower_than_a_turn_waits_delays_only_the_vectors(tmp_path: Path, user: str) -> None:
    with ScriptedUpstream() as upstream, ExitStack() as stack:
        upstream.fail_always("embed", Fault(hang_s=1.2))
        service = stack.enter_context(running(upstream, tmp_path, emb_timeout_s=0.3))
        began = time.monotonic()
        service.client.tell(DOG, user, "monday")
        asked = service.client.tell(QUESTION, user, "tuesday")
        assert time.monotonic() - began < 1.2, "no turn waits for it"
        assert DOG in asked.replayed
        assert asked.memory("memory_status")["mode"] == "lexical"
        # Nobody hurries it: the model is activated and what was said gets its vectors, each call as slow as before.
        service.settle()
        upstream.heal()
        upstream.forget_calls()
        later = service.client.tell(QUESTION, user, "friday")
        assert service.ledger.one(RetrievalRecorded, later).outcome == "ok"
        assert DOG in later.replayed
        assert [call.body["input"] for call in upstream.calls_of("embed")] == [[QUESTION]], "memory had its vectors"
        assert service.client.get("/health/ready").status_code == 200
        assert "ERROR" not in service.log()
        assert "Traceback" not in service.log()


@pytest.mark.parametrize("change", ["name", "length"])
def test_another_embedding_model_is_named_with_the_command_to_run(tmp_path: Path, user: str, change: str) -> None:
    with ScriptedUpstream(embedding_models=("old", "new"), matryoshka=True) as upstream:
        with running(upstream, tmp_path, emb_model="old") as service:
            service.client.tell(DOG, user, "monday")
            service.settle()
        changed: dict[str, object] = {"emb_model": "new"} if change == "name" else {"embedding_dims": 64}
        with running(upstream, tmp_path, **{"emb_model": "old", **changed}) as service:
            until("the start says so", lambda: "python -m projections.rebuild" in service.log())
            served = service.client.tell(QUESTION, user, "thursday")
            assert "Bruno" in served.text, "the old model still answers"
            assert "python -m projections.rebuild" in served.memory("memory_status")["notice"]
            ready = service.client.get("/health/ready")
            assert ready.status_code == 200
            assert "python -m projections.rebuild" in ready.json()["checks"]["memory"]["message"]
            # The server is started with other weights, and answers to any name with those.
            upstream.salt = "other weights"
            answer = service.client.tell(QUESTION, user, "friday")
            assert "Bruno" in answer.text, "its words are found whatever the model"
            status = answer.memory("memory_status")
            assert status["retrieval"] == "degraded"
            assert "python -m projections.rebuild" in status["notice"]
            retrieval = service.ledger.one(RetrievalRecorded, answer)
            assert retrieval.degraded_code == "embedding_model_mismatch"
            ready = service.client.get("/health/ready")
            assert ready.status_code == 503
            assert "python -m projections.rebuild" in ready.json()["checks"]["memory"]["message"]
