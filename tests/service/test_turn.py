"""A turn remembers, in the order and with the calls that were promised, and is on the disk before it is done."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import openai
import pytest

from domain.events import (
    GateDecided,
    NewEvent,
    RerankDecided,
    RetrievalRecorded,
    SummaryRecorded,
    TurnFailed,
    TurnRecorded,
)
from domain.identity import StreamId
from domain.prompts import CHAT_SYSTEM
from domain.sqlite import open_engine
from tests.ledgers import new_ledger_file, opened, record, turn
from tests.service.opm import environment, opm
from tests.service.running import Client, Running, chat_body, events_of, running, someone, until
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream, gate_keeps_all

DOG = "My dog is called Bruno."
DOG_QUESTION = "What is the name of my dog?"


def whole(content: object, reason: str, **message: object) -> Fault:
    """Return an answer as one JSON, which a stream may hold too."""
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}
    return Fault(raw=json.dumps({"choices": [choice]}).encode())


EMPTY = {
    "null after reasoning": (
        whole(None, "length", reasoning_content="Hm."),
        "all its tokens went to reasoning (max_tokens = 50): raise max_tokens",
    ),
    "reasoning in the text": (Fault(content="<think>Hm, the dog", finish_reason="length"), "went to reasoning"),
    "reasoning in parts": (whole([{"type": "thinking", "thinking": "Hm."}], "length"), "went to reasoning"),
    "reasoning and stop": (Fault(reasoning="Hm.", content=""), "turn reasoning off with LLM_EXTRA_BODY"),
    "null, length": (whole(None, "length"), "cut before the first word (max_tokens = 50)"),
    "empty, stop": (Fault(content=""), "ended before the first word: ask again"),
    "blank, stop": (Fault(content=" \n"), "ended before the first word: ask again"),
    "filtered": (whole(None, "content_filter"), "content filter"),
}


@contextmanager
def write_lock(ledger: Path) -> Iterator[None]:
    """Hold the right to write the ledger, as another process that appends to it."""
    engine = open_engine(ledger, writer=True)
    try:
        with engine.begin():
            yield
    finally:
        engine.dispose()


class TestRecall:
    @pytest.mark.parametrize("stream", [False, True])
    def test_a_fact_told_in_one_conversation_is_recalled_in_another(
        self, service: Running, user: str, stream: bool
    ) -> None:
        told = service.client.tell(DOG, user, "monday", stream=stream)
        service.client.tell("The weather in Oslo is grey.", user, "monday", stream=stream)
        service.settle()
        asked = service.client.tell(DOG_QUESTION, user, "friday", stream=stream)
        assert "Bruno" in asked.text
        [memory] = asked.memory("retrieved")["replay"]
        assert memory["memory_id"] == told.memory("turn")["memory_id"]
        assert (memory["conv_id"], memory["turn_id"]) == ("monday", 1)
        assert (memory["raw_user"], memory["raw_assistant"]) == (DOG, told.text)
        assert 0.2 < memory["score"] <= 1
        assert memory["ts"].endswith("Z")

    def test_a_fact_is_recalled_at_once_while_the_summary_model_hangs(self, service: Running, user: str) -> None:
        service.upstream.fail("summary", Fault(hang_s=UNTIL_RELEASED))
        service.client.tell(DOG, user, "monday")
        service.upstream.wait_for("summary")
        asked = service.client.tell(DOG_QUESTION, user, "friday")
        assert "Bruno" in asked.text
        assert asked.replayed == [DOG]
        assert not service.ledger.all(SummaryRecorded, user, "monday")

    def test_a_fact_is_recalled_in_chinese(self, service: Running, user: str) -> None:
        service.client.tell("我的狗叫豆豆，今年三岁。", user, "一")
        assert "豆豆" in service.client.tell("你还记得我的狗叫什么吗？", user, "二").text

    def test_another_user_never_recalls_it(self, service: Running, user: str) -> None:
        service.client.tell(DOG, user, "monday")
        service.settle()
        service.upstream.forget_calls()
        asked = service.client.tell(DOG_QUESTION, someone(), "monday")
        assert "Bruno" not in asked.text
        assert asked.memory("retrieved") == {"replay": [], "summary_only": []}
        assert "Bruno" not in json.dumps([call.body for call in service.upstream.calls])

    def test_the_summary_can_be_found_and_is_shown(self, service: Running, user: str) -> None:
        service.upstream.say("summary", "The person keeps axolotls.")
        service.client.tell("I have some unusual pets.", user, "monday")
        service.settle()
        asked = service.client.tell("Who keeps axolotls?", user, "friday", retrieve_k=0)
        assert asked.summaries == ["The person keeps axolotls."]
        [found] = service.ledger.one(RetrievalRecorded, asked).candidates
        assert found.matched == "summary"
        assert "The person keeps axolotls." in service.messages()[0][1]

    def test_without_user_and_conversation_it_is_anonymous_default(self, client: Client, service: Running) -> None:
        answer = client.post({"messages": [{"role": "user", "content": "Hello."}]})
        assert answer.memory("turn")["conversation_id"] == "default"
        assert {(e.user_id, e.conversation_id) for e in service.ledger.of_answer(answer)} == {("anonymous", "default")}

    def test_conv_id_is_an_alias(self, client: Client, user: str) -> None:
        answer = client.post(
            {"messages": [{"role": "user", "content": "Hi."}], "user": user, "metadata": {"conv_id": "x/y"}}
        )
        assert answer.memory("turn")["conversation_id"] == "x/y"


class TestWindow:
    def test_it_is_the_newest_turns_of_this_conversation_oldest_first(self, service: Running, user: str) -> None:
        for number in range(1, 5):
            service.client.tell(f"Number {number} passes.", user, "a", candidate_n=0)
        service.client.tell("Elsewhere entirely.", user, "b", candidate_n=0)
        service.client.tell("And now?", user, "a", recent_turns=3, candidate_n=0)
        assert service.said() == ["Number 2 passes.", "Number 3 passes.", "Number 4 passes.", "And now?"]

    def test_a_history_that_the_client_sends_is_the_window(self, service: Running, user: str) -> None:
        service.client.tell("I like tea.", user, "c")
        body = chat_body("What now?", user, "c", candidate_n=0)
        body["messages"] = [
            {"role": "user", "content": "its own question"},
            {"role": "assistant", "content": "its own answer"},
            *body["messages"],
        ]
        assert service.client.post(body).status == 200
        assert service.messages()[1:] == [
            ("user", "its own question"),
            ("assistant", "its own answer"),
            ("user", "What now?"),
        ]

    def test_neither_its_turns_nor_exact_copies_are_candidates(self, service: Running, user: str) -> None:
        service.upstream.say("answer", "Noted.")
        copy = service.client.tell(DOG, user, "old", candidate_n=0).memory("turn")["memory_id"]
        shown = service.client.tell(DOG, user, "new", candidate_n=0).memory("turn")["memory_id"]
        other = service.client.tell("My dog Bruno likes cheese.", user, "old", candidate_n=0)
        service.settle()
        asked = service.client.tell("Does my dog Bruno like cheese?", user, "new")
        retrieval = service.ledger.one(RetrievalRecorded, asked)
        why = {candidate.memory_id: candidate.excluded for candidate in retrieval.candidates}
        assert why[shown] == "recent_window"
        assert why[copy] == "same_text_as_window"
        assert why[other.memory("turn")["memory_id"]] is None
        assert asked.replayed == ["My dog Bruno likes cheese."]
        assert service.said().count(DOG) == 1

    def test_candidates_are_ranked_by_score_and_bounded(self, service: Running, user: str) -> None:
        service.tell_all([f"Bruno the dog met cat number {n}." for n in range(12)], user)
        asked = service.client.tell("Which cat did the dog Bruno meet?", user, candidate_n=7)
        found = service.ledger.one(RetrievalRecorded, asked).candidates
        assert [candidate.rank for candidate in found] == list(range(1, 8))
        assert [c.score for c in found] == sorted((c.score for c in found), reverse=True)
        assert len(service.ledger.one(GateDecided, asked).verdicts) == 7


class TestPrompt:
    def test_one_system_message_first_then_alternating_turns_and_the_question_last(
        self, service: Running, user: str
    ) -> None:
        service.upstream.responders["gate"] = gate_keeps_all
        service.tell_all([f"Bruno the dog ate sausage number {n}." for n in range(6)], user)
        service.client.tell("Hello again.", user, "now", candidate_n=0)
        body = chat_body("What did the dog Bruno eat?", user, "now", retrieve_k=2)
        body["messages"] = [
            {"role": "system", "content": "Speak like a pirate."},
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            {
                "role": "user",
                "content": [{"type": "text", "text": "What did the dog"}, {"type": "text", "text": "eat?"}],
            },
        ]
        answer = service.client.post(body)
        assert answer.status == 200
        messages = service.messages()
        assert [role for role, _ in messages] == ["system", *["user", "assistant"] * 3, "user"]
        system = messages[0][1]
        assert system.index(CHAT_SYSTEM) < system.index("Speak like a pirate.") < system.index("Be brief.")
        assert system.index("Be brief.") < system.index("What you remember, until the line ")
        assert len(answer.replayed) == 2
        assert len(answer.summaries) == 4
        assert all(text in system for text in answer.summaries)
        assert messages[-3][1].endswith("] Hello again.")
        assert messages[-1][1] == "What did the dog\neat?"

    def test_every_exchange_carries_its_date_and_replayed_ones_stand_before_the_window(
        self, service: Running, user: str
    ) -> None:
        service.client.tell(DOG, user, "monday")
        service.client.tell("Hello.", user, "friday", candidate_n=0)
        answer = service.client.tell(DOG_QUESTION, user, "friday")
        told = answer.memory("retrieved")["replay"][0]["ts"][:16].replace("T", " ")
        friday = service.ledger.all(TurnRecorded, user, "friday")[0].ts
        assert [text for role, text in service.messages() if role == "user"] == [
            f"[{told}] {DOG}",
            f"[{friday:%Y-%m-%d %H:%M}] Hello.",
            DOG_QUESTION,
        ]


class TestUpstreamCalls:
    def test_a_turn_makes_four_and_waits_for_none_after_the_answer(self, service: Running, user: str) -> None:
        service.tell_all([f"Bruno the dog met cat number {n}." for n in range(7)], user)
        service.settle()
        service.upstream.forget_calls()
        service.upstream.fail("summary", Fault(hang_s=UNTIL_RELEASED))
        answer = service.client.tell("Which cat did the dog Bruno meet?", user, stream=True)
        assert answer.finish_reason == "stop"
        before = [call.kind for call in service.upstream.calls if call.kind not in {"summary", "embed"}]
        assert before == ["gate", "rerank", "answer"]
        first = service.upstream.calls[0]
        assert first.kind == "embed"
        assert first.body["input"] == ["Which cat did the dog Bruno meet?"]
        for earlier, later in zip(service.upstream.calls, service.upstream.calls[1:4], strict=False):
            assert earlier.ended is not None
            assert earlier.ended <= later.started
        # The only others are the background's: the exchange's vector and its summary.
        assert {call.kind for call in service.upstream.calls[4:]} <= {"embed", "summary"}

    def test_recalled_text_is_never_stored_again(self, service: Running, user: str) -> None:
        service.upstream.say("answer", "Indeed.")
        service.client.tell("My dog Bruno loves mangoes.", user, "monday")
        service.settle()
        service.upstream.forget_calls()
        asked = service.client.tell("What does my dog love?", user, "friday")
        assert asked.replayed == ["My dog Bruno loves mangoes."]
        service.settle()
        [summary] = service.upstream.calls_of("summary")
        assert "What does my dog love?" in summary.body["messages"][1]["content"]
        assert "mangoes" not in json.dumps(summary.body)
        embedded = [text for call in service.upstream.calls_of("embed") for text in call.body["input"]]
        assert "What does my dog love?\nIndeed." in embedded
        assert not [text for text in embedded if "mangoes" in text]
        assert "mangoes" not in service.ledger.one(TurnRecorded, asked).model_dump_json()


class TestRecording:
    def test_all_four_events_share_the_answers_id_and_each_causes_the_next(self, service: Running, user: str) -> None:
        answer = service.client.tell(DOG, user, stream=True)
        service.settle()
        events = service.ledger.of_answer(answer)
        assert [type(event.payload).__name__ for event in events] == [
            "RetrievalRecorded",
            "GateDecided",
            "RerankDecided",
            "TurnRecorded",
            "SummaryRecorded",
        ]
        assert [event.causation_id for event in events] == [None, *(event.event_id for event in events[:-1])]
        assert len({event.recorded_at for event in events[:4]}) == 1
        assert {event["id"] for event in answer.events} == {answer.id}
        turn = answer.memory("turn")
        assert (turn["memory_id"], turn["turn_id"]) == (events[3].event_id, 1)

    @pytest.mark.parametrize("include_usage", [False, True])
    def test_the_parts_of_a_stream_come_in_their_order(self, client: Client, user: str, include_usage: bool) -> None:
        answer = client.tell(DOG, user, stream=True, stream_options={"include_usage": include_usage})
        assert answer.headers["content-type"].startswith("text/event-stream")
        first, *rest = answer.events
        assert first["choices"][0]["delta"]["role"] == "assistant"
        assert {"retrieved", "memory_status"} <= set(first)
        assert all(not {"retrieved", "memory_status"} & set(event) for event in rest)
        finish = answer.events[-2] if include_usage else answer.events[-1]
        assert finish["choices"][0]["finish_reason"] == "stop"
        assert "turn" in finish
        assert [bool(event.get("usage")) for event in answer.events].count(True) == include_usage
        if include_usage:
            usage = answer.events[-1]["usage"]
            assert answer.events[-1]["choices"] == []
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 20
        assert answer.ended

    def test_the_last_chunk_waits_for_the_commit(self, service: Running, user: str) -> None:
        service.client.tell("Warm up.", user)
        service.settle()
        until_finish: list[str] = []
        reached, done = threading.Event(), threading.Event()

        def read() -> None:
            with service.client.http.stream(
                "POST", "/v1/chat/completions", json=chat_body(DOG, user, stream=True)
            ) as response:
                for event in events_of(response):
                    choice = event["choices"][0] if event and event["choices"] else None
                    if choice is not None and choice["finish_reason"]:
                        done.set()
                    elif choice is not None:
                        until_finish.append(choice["delta"].get("content", ""))
                        if "".join(until_finish).strip():
                            reached.set()

        with write_lock(service.ledger.path):
            reader = threading.Thread(target=read)
            reader.start()
            assert reached.wait(10)
            service.upstream.wait_for("answer", 2, ended=True)
            # The chat model is through and all it said has been streamed, yet the finish chunk stays away.
            assert not done.wait(0.3)
            assert [turn.user for turn in service.ledger.all(TurnRecorded, user)] == ["Warm up."]
        assert done.wait(10)
        reader.join(10)
        assert [turn.user for turn in service.ledger.all(TurnRecorded, user)] == ["Warm up.", DOG]

    def test_the_answer_without_stream_waits_for_the_commit(self, service: Running, user: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            with write_lock(service.ledger.path):
                answer = pool.submit(service.client.tell, DOG, user)
                service.upstream.wait_for("answer", ended=True)
                with pytest.raises(TimeoutError):
                    answer.result(0.3)
            assert answer.result(10).memory("turn")["turn_id"] == 1

    @pytest.mark.parametrize("stream", [False, True])
    def test_finish_reason_and_usage_are_the_models_own(self, service: Running, user: str, stream: bool) -> None:
        service.upstream.fail("answer", Fault(content="Half a", finish_reason="length"))
        answer = service.client.tell(DOG, user, stream=stream, max_tokens=7)
        assert answer.finish_reason == "length"
        turn = service.ledger.one(TurnRecorded, answer)
        assert (turn.finish_reason, turn.assistant) == ("length", "Half a")
        assert turn.usage is not None
        assert turn.usage.completion_tokens == 2
        if not stream:
            assert answer.body["usage"] == turn.usage.model_dump(exclude_none=True)

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("name", EMPTY)
    def test_an_empty_answer_is_a_failed_turn_and_says_why(
        self, service: Running, user: str, name: str, stream: bool
    ) -> None:
        fault, why = EMPTY[name]
        service.upstream.fail("answer", fault)
        answer = service.client.ask(DOG, user, stream=stream, max_tokens=50)
        status = 400 if "raise max_tokens" in why or "cut" in why or "went to" in why else 502
        assert (answer.status, answer.error["code"]) == (200 if stream else status, "upstream_empty")
        assert why in answer.error["message"]
        assert not answer.ended
        [failed] = service.ledger.all(TurnFailed, user)
        assert (failed.user, failed.partial_assistant, failed.error) == (DOG, "", answer.error["message"])
        service.settle()
        assert not service.ledger.all(TurnRecorded, user)
        assert not service.upstream.calls_of("summary")
        assert service.client.tell("Hello.", user).memory("turn")["turn_id"] == 1
        assert service.messages()[1:] == [("user", "Hello.")], "nothing of it is a memory"

    def test_an_empty_turn_of_an_earlier_version_opens_verifies_and_rebuilds(
        self, upstream: ScriptedUpstream, tmp_path: Path, user: str
    ) -> None:
        new_ledger_file(tmp_path)
        with opened(tmp_path / "ledger.sqlite3") as ledger:
            record(ledger, StreamId(user, "c"), turn(1, DOG, ""))
        with running(upstream, tmp_path) as service:
            service.settle()
            assert DOG in service.client.tell(DOG_QUESTION, user, "friday").replayed
        for folder in tmp_path.glob("users/*/index"):
            shutil.rmtree(folder)
        with running(upstream, tmp_path) as service:
            assert DOG in service.client.tell(DOG_QUESTION, user, "saturday").replayed
            service.settle()
        assert opm(environment(tmp_path), "verify").status == 0

    @pytest.mark.parametrize("stream", [False, True])
    def test_an_empty_turn_of_an_earlier_version_is_still_shown(
        self, service: Running, user: str, stream: bool
    ) -> None:
        old = NewEvent(str(uuid4()), turn(1, DOG, ""), "chatcmpl-old")
        service.services.ledger.append(StreamId(user, "c"), lambda _head: [old]).result(10)
        service.settle()
        assert service.client.tell("And now?", user, stream=stream).memory("turn")["turn_id"] == 2
        # Templates refuse an empty assistant message, so the window says that there was none.
        assert [text for role, text in service.messages() if role == "assistant"] == ["(no text)"]

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        "fault",
        [
            Fault(reasoning="Secretly a cat.", content="Bruno."),
            Fault(reasoning="Secretly a cat.", reasoning_field="reasoning", content="Bruno."),
            Fault(think="Secretly a cat.", content="Bruno."),
        ],
        ids=["reasoning_content", "reasoning", "think"],
    )
    def test_reasoning_is_shown_and_never_stored(self, service: Running, user: str, stream: bool, fault: Fault) -> None:
        service.upstream.fail("answer", fault)
        answer = service.client.tell(DOG, user, stream=stream)
        assert "Bruno." in answer.text
        assert "Secretly" in json.dumps(answer.events or answer.body)
        service.settle()
        assert service.ledger.one(TurnRecorded, answer).assistant == "Bruno."
        stored = [event.payload.model_dump_json() for event in service.ledger.of_answer(answer)]
        assert not [text for text in stored if "Secretly" in text]
        service.client.tell("Next.", user)
        assert "Secretly" not in json.dumps(service.messages())


class TestConcurrency:
    @pytest.mark.parametrize("count", [2, 50])
    def test_requests_at_once_get_distinct_consecutive_turn_ids(self, service: Running, user: str, count: int) -> None:
        service.upstream.fail_always("answer", Fault(hang_s=UNTIL_RELEASED))
        with ThreadPoolExecutor(count) as pool:
            asked = [pool.submit(service.client.tell, f"Remark {n}.", user, candidate_n=0) for n in range(count)]
            service.upstream.wait_for("answer", count)
            service.upstream.heal()
            service.upstream.release()
            ids = [answer.result(30).memory("turn")["turn_id"] for answer in asked]
        assert sorted(ids) == list(range(1, count + 1))
        turns = service.ledger.all(TurnRecorded, user)
        assert [turn.turn_id for turn in turns] == list(range(1, count + 1))
        assert {turn.user for turn in turns} == {f"Remark {n}." for n in range(count)}

    def test_a_hanging_model_for_one_user_does_not_delay_another(self, service: Running, user: str) -> None:
        service.client.tell("My dog is called Rex.", user)
        service.settle()
        for kind in ("gate", "answer"):
            service.upstream.fail(kind, Fault(hang_s=UNTIL_RELEASED))
        service.upstream.forget_calls()
        with ThreadPoolExecutor(2) as pool:
            at_gate = pool.submit(service.client.tell, DOG_QUESTION, user, "other")
            service.upstream.wait_for("gate")
            at_answer = pool.submit(service.client.tell, "Hello.", someone())
            service.upstream.wait_for("answer")
            assert service.client.tell(DOG, someone()).status == 200
            assert not at_gate.done()
            assert not at_answer.done()
            service.upstream.release()
            assert at_gate.result(20).status == at_answer.result(20).status == 200


class TestOpenAIClient:
    def test_the_official_client_works_as_it_comes(self, service: Running, user: str) -> None:
        with openai.OpenAI(base_url=f"{service.client.base_url}/v1", api_key="any") as official:
            answer = official.chat.completions.create(
                model="whatever",
                messages=[{"role": "user", "content": DOG}],
                user=user,
                metadata={"conversation_id": "c", "recent_turns": "2", "use_gate": "false"},
            )
            assert (answer.choices[0].finish_reason, answer.model) == ("stop", "scripted-chat")
            assert answer.usage is not None
            assert (answer.model_extra or {})["turn"]["turn_id"] == 1
            chunks = list(
                official.chat.completions.create(
                    model="whatever",
                    messages=[{"role": "user", "content": DOG_QUESTION}],
                    user=user,
                    metadata={"conversation_id": "d"},
                    stream=True,
                    stream_options={"include_usage": True},
                )
            )
            assert [item["raw_user"] for item in (chunks[0].model_extra or {})["retrieved"]["replay"]] == [DOG]
            assert "Bruno" in "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert chunks[-1].usage is not None
            assert [model.id for model in official.models.list()] == ["scripted-chat", "scripted-chat:no-memory"]
        assert len(service.ledger.all(RerankDecided, user, "c")) == 1

    def test_a_retry_after_a_failure_lands_once(self, service: Running, user: str) -> None:
        service.upstream.fail("answer", Fault(status=503))
        with openai.OpenAI(base_url=f"{service.client.base_url}/v1", api_key="any") as official:
            official.chat.completions.create(model="m", messages=[{"role": "user", "content": DOG}], user=user)
        until("the turn is there", lambda: service.ledger.all(TurnRecorded, user, "default"))
        assert len(service.ledger.all(TurnRecorded, user, "default")) == 1
