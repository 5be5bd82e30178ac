"""What only a real process shows: killed, told to end, given other prompts or another embedding model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from domain.events import (
    EmbeddingModelActivated,
    GateDecided,
    PromptsActivated,
    SummaryRecorded,
    TurnFailed,
    TurnRecorded,
)
from domain.prompt import NOTES_LAYOUT
from domain.prompts import CHAT_SYSTEM, version_of
from tests.processes import ROOT, Service, service_process
from tests.service.opm import environment, opm
from tests.service.running import Client, LedgerView, chat_body, events_of, running, until
from tests.upstream import UNTIL_RELEASED, Fault, Kind, ScriptedUpstream

DOG = "My dog is called Bruno."
QUESTION = "What is the name of my dog?"
USER = "ann"


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(embedding_models=("old", "new")) as running:
        yield running


def env_of(upstream: ScriptedUpstream, storage: Path) -> dict[str, str]:
    return {
        "LLM_BASE_URL": upstream.base_url,
        "LLM_MODEL": upstream.chat_model,
        "EMB_BASE_URL": upstream.base_url,
        "EMB_MODEL": "old",
        "STORAGE_DIR": str(storage),
        "OPENAI_API_KEY": "sk-canary-4711",
    }


@contextmanager
def process(env: Mapping[str, str], options: Sequence[str] = ()) -> Iterator[tuple[Service, Client, LedgerView]]:
    with service_process(env, options=options) as service:
        client, ledger = Client(service.base_url), LedgerView(Path(env["STORAGE_DIR"]) / "ledger.sqlite3")
        try:
            yield service, client, ledger
        finally:
            client.http.close()
            ledger.close()


def test_acknowledged_turns_survive_kill_9_and_projections_are_rebuilt(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.fail_always("summary", Fault(hang_s=UNTIL_RELEASED))
    upstream.fail("answer", Fault(content="One two three four.", hang_s=UNTIL_RELEASED, after_chunks=2))
    with process(env_of(upstream, tmp_path)) as (service, client, ledger):
        with client.http.stream("POST", "/v1/chat/completions", json=chat_body(DOG, USER, stream=True)) as response:
            events = events_of(response)  # held: let go of, it would close the connection, and the client hang up first
            assert next(events) is not None
            service.kill9()
        service.start()
        # Nothing of a turn in mid-stream is half recorded.
        assert ledger.stream(USER) == []
        told = client.tell(DOG, USER, "monday", stream=True)
        # Killed at once: the vector, the mirror and the summary may or may not have been begun.
        service.kill9()
        service.start()
        assert "Bruno" in client.tell(QUESTION, USER, "tuesday").text
        service.kill9()
        upstream.heal()
        upstream.release()
        # What can be derived may be lost altogether.
        shutil.rmtree(tmp_path / "users", ignore_errors=True)
        for cache in tmp_path.glob("vectors.sqlite3*"):
            cache.unlink()
        service.start()
        asked = client.tell(QUESTION, USER, "friday")
        assert DOG in asked.replayed
        assert [turn.user for turn in ledger.all(TurnRecorded, USER, "monday")] == [DOG]
        until("the summary is made up for", lambda: ledger.all(SummaryRecorded, USER, "monday"))
        mirror = tmp_path / "users" / USER / "conversations" / "monday.jsonl"
        until("the mirror is whole", lambda: mirror.exists() and len(mirror.read_text().splitlines()) == 5)
        lines = [json.loads(line) for line in mirror.read_text().splitlines()]
        [turn] = [line for line in lines if "turn_id" in line and "assistant" in line]
        assert (turn["turn_id"], turn["user"], turn["assistant"]) == (1, DOG, told.text)
        assert turn["ts"]
        log = service.log()
        assert "Traceback" not in log
        assert "Bruno" not in log
        assert "sk-canary" not in log
        assert log.count(f"a new, empty ledger was made at {tmp_path / 'ledger.sqlite3'}") == 1


def test_on_sigterm_it_finishes_running_answers(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.fail("answer", Fault(content="One two three four.", hang_s=UNTIL_RELEASED, after_chunks=2))
    with process(env_of(upstream, tmp_path)) as (service, client, ledger):
        with client.http.stream("POST", "/v1/chat/completions", json=chat_body(DOG, USER, stream=True)) as response:
            events = events_of(response)
            # The second one shows that the endpoint is at the point where it hangs, and can be released from it.
            next(events)
            next(events)
            ending = threading.Thread(target=service.terminate)
            ending.start()
            until("it was told", lambda: "Shutting down" in service.log())
            upstream.release()
            rest = list(events)
        ending.join()
        assert rest[-1] is None
        assert [turn.assistant for turn in ledger.all(TurnRecorded, USER)] == ["One two three four."]
        assert "Application shutdown complete" in service.log()
        assert "Traceback" not in service.log()


def test_on_sigterm_it_waits_for_a_silent_model_as_long_as_a_turn_would(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.fail("answer", Fault(content="One two three four.", hang_s=UNTIL_RELEASED, after_chunks=2))
    env = env_of(upstream, tmp_path) | {"LLM_TIMEOUT_S": "1"}
    with process(env) as (service, client, ledger):
        with client.http.stream("POST", "/v1/chat/completions", json=chat_body(DOG, USER, stream=True)) as response:
            events = events_of(response)
            said = ""
            while said != "One two":
                event = next(events)
                assert event is not None
                said += event["choices"][0]["delta"].get("content", "")
            ending = threading.Thread(target=service.terminate)
            ending.start()
            rest = list(events)
        ending.join()
        assert rest[-1] is not None
        assert rest[-1]["error"]["code"] == "upstream_timeout"
        [failed] = ledger.all(TurnFailed, USER)
        assert (failed.user, failed.partial_assistant) == (DOG, "One two")
        assert "Application shutdown complete" in service.log()


@pytest.mark.parametrize("app", [None, "service.app:app"])
def test_the_log_names_no_person_whom_an_address_names(
    upstream: ScriptedUpstream, tmp_path: Path, app: str | None
) -> None:
    websocket = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with service_process(env_of(upstream, tmp_path), app=app) as service:
        client = Client(service.base_url)
        assert client.get("/v1/turns", user="ann-canary", conversation_id="canary").status_code == 200
        assert client.get("/v1/memories/canary", user="ann-canary").status_code == 404
        assert client.get("/v1/users/ann-canary").status_code == 404
        with client.http.stream("GET", "/v1/turns?user=ann-canary", headers=websocket) as response:
            assert response.status_code == 403
        client.http.close()
        service.terminate()
        log = service.log()
    assert "canary" not in log
    for line in ("GET /v1/turns 200", "GET /v1/memories/{memory_id} 404", "GET (no such route) 404"):
        assert line in log


def test_replaced_prompts_are_used_and_recorded_with_their_texts(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    prompts, storage = tmp_path / "prompts", tmp_path / "storage"
    prompts.mkdir()
    with running(upstream, storage, emb_model="old") as service:
        first = service.client.tell(DOG, USER)
        [active] = service.ledger.all(PromptsActivated, "", "")
        before = service.ledger.report(first).system_version
        assert active.versions["CHAT_SYSTEM"] == before == version_of(active.texts["CHAT_SYSTEM"])
    (prompts / "CHAT_SYSTEM.txt").write_text("You are a parrot.\n")
    (prompts / "GATE_SYSTEM.txt").write_text("Choose well. Answer in JSON.")
    with running(upstream, storage, emb_model="old", prompts_dir=prompts) as service:
        second = service.client.tell(QUESTION, USER, "other")
        assert service.messages()[0][1].startswith("You are a parrot.")
        assert upstream.calls_of("gate")[-1].body["messages"][0]["content"] == "Choose well. Answer in JSON."
        after = service.ledger.report(second).system_version
        assert after == version_of("You are a parrot.") != before
        assert service.ledger.one(GateDecided, second).prompt_version == version_of("Choose well. Answer in JSON.")
        _, replaced = service.ledger.all(PromptsActivated, "", "")
        assert replaced.texts["CHAT_SYSTEM"] == "You are a parrot."
        assert replaced.versions["SUMMARY_SYSTEM"] == active.versions["SUMMARY_SYSTEM"]
    with running(upstream, storage, emb_model="old", prompts_dir=prompts) as service:
        assert len(service.ledger.all(PromptsActivated, "", "")) == 2


def test_a_chinese_question_is_asked_with_the_chinese_prompt_and_proved(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts"
    prompts.mkdir()
    (prompts / "CHAT_SYSTEM.zh.txt").write_text("你是助手。", encoding="utf-8")
    with running(upstream, tmp_path / "storage", emb_model="old", prompts_dir=prompts) as service:
        for question, system in (("我的狗叫什么？", "你是助手。"), (QUESTION, CHAT_SYSTEM)):
            asked = service.client.tell(question, USER, "other")
            assert service.messages()[0][1].startswith(system)
            assert service.ledger.report(asked).system_version == version_of(system)
            trace = opm(environment(tmp_path / "storage"), "explain", asked.id, "--json").json
            assert trace["prompt"]["proof"] == "same_as_sent"


def test_where_something_is_recalled_the_prompt_for_that_is_used_and_proved(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    prompts, recalling, asked_of_oneself = tmp_path / "prompts", "There are notes.", "Answer from the notes."
    prompts.mkdir()
    (prompts / "CHAT_SYSTEM.recalled.txt").write_text(recalling)
    (prompts / "CHAT_SYSTEM.asked.txt").write_text(asked_of_oneself)
    with running(upstream, tmp_path / "storage", emb_model="old", prompts_dir=prompts) as service:
        for said, conversation, system in (
            (DOG, "one", CHAT_SYSTEM),
            ("And?", "one", CHAT_SYSTEM),
            (QUESTION, "two", asked_of_oneself),
            ("Tell me the name of my dog.", "three", recalling),
        ):
            asked = service.client.tell(said, USER, conversation)
            assert service.messages()[0][1].startswith(system)
            assert service.ledger.report(asked).system_version == version_of(system)
            trace = opm(environment(tmp_path / "storage"), "explain", asked.id, "--json").json
            assert trace["prompt"]["proof"] == "same_as_sent"


def test_memories_as_notes_before_the_question_are_recorded_and_proved(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with running(upstream, tmp_path / "storage", emb_model="old", replay_as="notes") as service:
        service.client.tell(DOG, USER)
        asked = service.client.tell(QUESTION, USER, "other")
        *_, (role, said) = service.messages()
        assert (role, len(service.messages())) == ("user", 2)
        assert f") {DOG} — " in said
        assert said.endswith(f"\n\n{QUESTION}")
        assert service.ledger.report(asked).layout == NOTES_LAYOUT
        assert service.ledger.one(TurnRecorded, asked).user == QUESTION
        trace = opm(environment(tmp_path / "storage"), "explain", asked.id, "--json").json
        assert trace["prompt"]["proof"] == "same_as_sent"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cut_off_by_the_stop_says_that_the_service_stopped(
    upstream: ScriptedUpstream, tmp_path: Path, stream: bool
) -> None:
    upstream.fail("answer", Fault(content="One two three four.", hang_s=UNTIL_RELEASED, after_chunks=2))
    env = env_of(upstream, tmp_path)
    with (
        process(env, options=("--timeout-graceful-shutdown", "1")) as (service, client, ledger),
        ThreadPoolExecutor(1) as pool,
    ):
        asking = pool.submit(client.post, chat_body(DOG, USER, stream=stream))
        upstream.wait_for("answer")
        service.terminate()
        answer = asking.result()
        assert (answer.error["code"], answer.ended) == ("service_stopped", False)
        ends = [(turn.user, turn.finish_reason) for turn in ledger.all(TurnRecorded, USER)]
        # Whether a word had come by then is not for the test to know: either end is right, if it says who stopped.
        ends += [(failed.user, failed.code) for failed in ledger.all(TurnFailed, USER)]
        assert ends == [(DOG, "service_stopped")]
        assert "Bruno" not in service.log()
        assert "Traceback" not in service.log()


def test_what_was_shown_of_a_stream_that_the_stop_cut_is_a_turn(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.fail("answer", Fault(content="One two three four.", hang_s=UNTIL_RELEASED, after_chunks=2))
    with process(env_of(upstream, tmp_path), ("--timeout-graceful-shutdown", "1")) as (service, client, ledger):
        with client.http.stream("POST", "/v1/chat/completions", json=chat_body(DOG, USER, stream=True)) as response:
            events, said = events_of(response), ""
            while said != "One two":
                event = next(events)
                assert event is not None
                said += event["choices"][0]["delta"].get("content", "")
            ending = threading.Thread(target=service.terminate)
            ending.start()
            rest = list(events)
        ending.join()
        assert rest[-1] is not None
        assert rest[-1]["error"]["code"] == "service_stopped"
        turns = [(turn.user, turn.assistant, turn.finish_reason) for turn in ledger.all(TurnRecorded, USER)]
        assert turns == [(DOG, "One two", "service_stopped")]
        assert not ledger.all(TurnFailed, USER)
        log = service.log()
        assert "Traceback" not in log
        assert "Exception in ASGI application" not in log
        assert log.count("ERROR") <= 1, "uvicorn counts the cut answers in one line"


def test_a_response_that_the_stop_cut_has_failed(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.fail("answer", Fault(content="One two three four.", hang_s=UNTIL_RELEASED, after_chunks=2))
    body = {"input": DOG, "user": USER, "stream": True, "conversation": "c"}
    with process(env_of(upstream, tmp_path), ("--timeout-graceful-shutdown", "1")) as (service, client, ledger):
        with client.http.stream("POST", "/v1/responses", json=body) as response:
            lines, said = response.iter_lines(), ""
            while said != "One two":
                line = next(lines)
                said += json.loads(line[6:]).get("delta", "") if line.startswith("data: ") else ""
            ending = threading.Thread(target=service.terminate)
            ending.start()
            rest = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        ending.join()
        [failed] = rest
        assert failed["type"] == "response.failed"
        assert failed["response"]["error"]["message"] == "the service was stopped: ask again"
        assert failed["response"]["output"][0]["content"][0]["text"] == "One two"
        turns = [(turn.user, turn.assistant, turn.finish_reason) for turn in ledger.all(TurnRecorded, USER)]
        assert turns == [(DOG, "One two", "service_stopped")]
        assert "Traceback" not in service.log()


@pytest.mark.parametrize("kind", ["embed", "answer"])
def test_a_stop_during_the_comments_says_that_the_service_stopped(
    upstream: ScriptedUpstream, tmp_path: Path, kind: Kind
) -> None:
    with process(env_of(upstream, tmp_path) | {"EMB_TIMEOUT_S": "60"}, ("--timeout-graceful-shutdown", "1")) as (
        service,
        client,
        ledger,
    ):
        client.tell("Hello.", USER)
        upstream.fail_always(kind, Fault(hang_s=UNTIL_RELEASED))
        body = chat_body(DOG, USER, "other", stream=True)
        with client.http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()  # held, or the client would hang up first
            assert next(lines) == ": working"
            service.terminate()
        [failed] = ledger.all(TurnFailed, USER, "other")
        assert (failed.user, failed.code) == (DOG, "service_stopped")
        assert "Bruno" not in service.log()
        assert "Traceback" not in service.log()


@pytest.mark.parametrize("name", ["what? is #1", "a b%20c?mode=memory"])
def test_the_storage_may_have_any_name(upstream: ScriptedUpstream, tmp_path: Path, name: str) -> None:
    storage = tmp_path / name / "storage"
    with running(upstream, storage, emb_model="old") as service:
        service.client.tell(DOG, USER, "monday")
        service.settle()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {"ledger.sqlite3", "vectors.sqlite3", "users"} <= {path.name for path in storage.iterdir()}
    with running(upstream, storage, emb_model="old") as service:
        assert DOG in service.client.tell(QUESTION, USER, "friday").replayed


def rebuild(upstream: ScriptedUpstream, storage: Path, *arguments: str) -> str:
    """Run the command beside the service with the new model; return what it says."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "projections.rebuild", *arguments],
        cwd=ROOT,
        env=kept | env_of(upstream, storage) | {"EMB_MODEL": "new"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_after_a_model_swap_the_rebuild_brings_memory_back_without_a_restart(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with running(upstream, tmp_path, emb_model="old") as service:
        service.client.tell(DOG, USER, "monday")
        service.settle()
    with running(upstream, tmp_path, emb_model="new") as service:
        until("the start names the command", lambda: "run `python -m projections.rebuild`" in service.log())
        swapped = service.client.tell(QUESTION, USER, "friday")
        assert swapped.memory("memory_status")["retrieval"] == "ok"
        assert "python -m projections.rebuild" in swapped.memory("memory_status")["notice"]
        assert DOG in swapped.replayed
        assert "new is active" in rebuild(upstream, tmp_path)
        assert [event.model for event in service.ledger.all(EmbeddingModelActivated, "", "")] == ["old", "new"]
        assert "Bruno" in service.client.tell(QUESTION, USER, "saturday").text
        until("it is ready", lambda: service.client.get("/health/ready").status_code == 200)
        # Another rebuild of the same model finds every vector in the cache.
        service.settle()
        upstream.forget_calls()
        assert ": 0 embedded" in rebuild(upstream, tmp_path, "--user", USER).replace("vectors, ", "vectors: ")
        assert len(upstream.calls_of("embed")) == 1
        assert service.client.tell(QUESTION, USER, "sunday").memory("memory_status")["retrieval"] == "ok"
