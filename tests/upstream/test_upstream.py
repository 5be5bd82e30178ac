"""The scripted upstream keeps its own promises, seen through the client that the service uses."""

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.upstream import UNTIL_RELEASED, ChatRequest, Fault, Kind, Reply, ScriptedUpstream, gate_keeps_all

ROOT = Path(__file__).parents[2]


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
async def client(upstream: ScriptedUpstream) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=upstream.base_url, api_key="test", max_retries=0, timeout=20) as opened:
        yield opened


def user(text: str) -> ChatCompletionMessageParam:
    return {"role": "user", "content": text}


def assistant(text: str) -> ChatCompletionMessageParam:
    return {"role": "assistant", "content": text}


def system(text: str) -> ChatCompletionMessageParam:
    return {"role": "system", "content": text}


async def embed(client: AsyncOpenAI, upstream: ScriptedUpstream, *texts: str, **more: Any) -> np.ndarray[Any, Any]:
    answer = await client.embeddings.create(model=upstream.embedding_model, input=list(texts), **more)
    return np.array([row.embedding for row in answer.data], np.float32)


async def ask(client: AsyncOpenAI, upstream: ScriptedUpstream, *messages: ChatCompletionMessageParam) -> str:
    answer = await client.chat.completions.create(model=upstream.chat_model, messages=messages)
    return answer.choices[0].message.content or ""


async def ask_schema(client: AsyncOpenAI, upstream: ScriptedUpstream, name: str, text: str) -> Any:
    answer = await client.chat.completions.create(
        model=upstream.chat_model,
        messages=[system("Decide."), user(text)],
        response_format={"type": "json_schema", "json_schema": {"name": name, "schema": {"type": "object"}}},
    )
    return json.loads(answer.choices[0].message.content or "")


async def stream(client: AsyncOpenAI, upstream: ScriptedUpstream, text: str) -> list[Any]:
    chunks = await client.chat.completions.create(
        model=upstream.chat_model, messages=[user(text)], stream=True, stream_options={"include_usage": True}
    )
    return [chunk async for chunk in chunks]


class TestEmbeddings:
    @pytest.mark.parametrize(
        ("near", "question", "far"),
        [
            ("My dog is called Bruno.", "What is the name of my dog?", "I moved to Oslo in May."),
            ("我的狗叫豆豆，今年三岁。", "你还记得我的狗叫什么吗？", "我下个月搬到上海工作。"),
        ],
    )
    async def test_texts_that_share_words_are_near(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream, near: str, question: str, far: str
    ) -> None:
        one, two, three = await embed(client, upstream, near, question, far)
        assert one @ two > 0.25
        assert one @ two > three @ two + 0.2

    async def test_vectors_are_unit_and_the_same_each_time_in_both_encodings(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        texts = ["a dog", "", "!!!", "的", "\ud7ff", "the the"]
        coded = await embed(client, upstream, *texts)
        plain = await embed(client, upstream, *texts, encoding_format="float")
        assert coded.shape == (6, 256)
        np.testing.assert_allclose(np.linalg.norm(coded, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(coded, plain, rtol=1e-6)

    async def test_e5_prefixes_carry_no_meaning(self, client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
        one, two, three = await embed(client, upstream, "query: red kite", "passage: red kite", "red kite")
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)

    async def test_another_model_name_or_salt_is_another_space(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        (first,) = await embed(client, upstream, "red kite over the hill")
        upstream.embedding_models = ("other",)
        (second,) = await embed(client, upstream, "red kite over the hill")
        upstream.salt = "retrained"
        (third,) = await embed(client, upstream, "red kite over the hill")
        upstream.dims = 32
        (fourth,) = await embed(client, upstream, "red kite over the hill")
        assert not np.allclose(first, second)
        assert not np.allclose(second, third)
        assert fourth.shape == (32,)

    async def test_refuses_what_real_servers_refuse(self, client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
        with pytest.raises(openai.NotFoundError, match="`absent` does not exist") as missing:
            await client.embeddings.create(model="absent", input="x")
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError, match="matryoshka"):
            await embed(client, upstream, "x", dimensions=8)
        upstream.max_input_chars = 10
        with pytest.raises(openai.BadRequestError, match="maximum context length"):
            await embed(client, upstream, "x" * 11)
        upstream.matryoshka = True
        (short,) = await embed(client, upstream, "x", dimensions=8)
        assert short.shape == (8,)

    async def test_bad_vectors_on_request(self, client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
        upstream.fail("embed", Fault(vector_length=7), Fault(nan=True))
        assert (await embed(client, upstream, "x")).shape == (1, 7)
        assert np.isnan(await embed(client, upstream, "x")).all()
        assert np.isfinite(await embed(client, upstream, "x")).all()


class TestChat:
    async def test_the_gate_keeps_what_shares_a_word(self, client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
        prompt = (
            "Question: What does my dog eat?\n\n[1] (2026-01-02) The user's dog is Bruno.\n"
            "[2] (2026-01-03) The user lives in Oslo.\n[3] (2026-01-04) Dogs like walks."
        )
        assert await ask_schema(client, upstream, "memory_gate", prompt) == {"keep": [1, 3]}
        upstream.responders["gate"] = gate_keeps_all
        assert await ask_schema(client, upstream, "memory_gate", prompt) == {"keep": [1, 2, 3]}
        assert await ask_schema(client, upstream, "memory_rerank", prompt) == {"top": [1, 3, 2]}
        assert [call.kind for call in upstream.calls] == ["gate", "gate", "rerank"]

    async def test_the_summary_is_one_sentence_of_the_exchange(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        prompt = system("You write memory summaries."), user("User: I like tea.\nAssistant: Noted.")
        assert await ask(client, upstream, *prompt) == "User: I like tea. Assistant: Noted."
        assert [call.kind for call in upstream.calls] == ["summary"]

    async def test_the_answer_quotes_a_fact_of_the_prompt_or_knows_nothing(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        told = user("Hello! My dog is called Bruno. Do dogs sleep?"), assistant("Good to know.")
        asked = user("What is the name of my dog?")
        assert await ask(client, upstream, *told, asked) == "From memory: My dog is called Bruno."
        in_system = system("Be kind.\n- 用户的狗叫豆豆。")
        assert await ask(client, upstream, in_system, user("我的狗叫什么？")) == "From memory: - 用户的狗叫豆豆。"
        assert await ask(client, upstream, asked) == "I do not know yet."

    async def test_a_stream_has_role_words_reason_and_usage(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        upstream.say("answer", "one  two three")
        first, *words, last, usage = await stream(client, upstream, "Say it")
        assert first.choices[0].delta.role == "assistant"
        assert [chunk.choices[0].delta.content for chunk in words] == ["one", " ", " two", " three"]
        assert last.choices[0].finish_reason == "stop"
        assert (usage.choices, usage.usage.completion_tokens) == ([], 3)
        assert usage.usage.prompt_tokens > 2

    async def test_a_responder_sees_the_parsed_request(self, client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
        seen: list[ChatRequest] = []

        def respond(request: ChatRequest) -> Reply:
            seen.append(request)
            return Reply("so be it", finish_reason="length", reasoning="hm")

        upstream.responders["answer"] = respond
        assert await ask(client, upstream, system("S"), user("[2] (x) b\nq")) == "so be it"
        assert (seen[0].system, seen[0].candidates, seen[0].question) == ("S", ((2, "b"),), "q")

    @pytest.mark.parametrize(
        "messages",
        [
            [],
            [user("a"), system("s")],
            [system("s"), system("t"), user("a")],
            [system("s")],
            [user("a"), user("b")],
            [user("a"), assistant("b")],
            [assistant("a"), user("b")],
        ],
    )
    async def test_templates_that_models_reject_are_rejected(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream, messages: list[ChatCompletionMessageParam]
    ) -> None:
        with pytest.raises(openai.BadRequestError) as refused:
            await ask(client, upstream, *messages)
        assert refused.value.type == "invalid_request_error"
        upstream.strict_template = False
        if messages:
            assert await ask(client, upstream, *messages)

    async def test_guided_decoding_is_gone_and_long_prompts_do_not_fit(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        with pytest.raises(openai.BadRequestError, match="guided_json was removed"):
            await client.chat.completions.create(
                model=upstream.chat_model, messages=[user("a")], extra_body={"guided_json": {}}
            )
        upstream.max_model_len = 50
        with pytest.raises(openai.BadRequestError) as refused:
            await ask(client, upstream, user("word " * 50))
        assert refused.value.code == "context_length_exceeded"

    async def test_models_tell_their_length_and_tokenize_sits_outside_v1(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        listed = [model async for model in client.models.list()]
        assert [model.id for model in listed] == ["scripted-chat", "scripted-embedding"]
        assert listed[0].model_dump()["max_model_len"] == 32_768
        outside = client.with_options(base_url=upstream.root_url)
        body = {"model": upstream.chat_model, "messages": [user("four words are here")]}
        assert (await outside.post("/tokenize", body=body, cast_to=dict[str, Any]))["count"] == 8
        upstream.tokenize = False
        with pytest.raises(openai.NotFoundError):
            await outside.post("/tokenize", body=body, cast_to=dict[str, Any])
        assert [call.kind for call in upstream.calls] == ["models", "tokenize"]


class TestFaults:
    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (400, openai.BadRequestError),
            (401, openai.AuthenticationError),
            (429, openai.RateLimitError),
            (500, openai.InternalServerError),
        ],
    )
    async def test_statuses_in_openai_shape_then_health(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream, status: int, error: type[openai.APIStatusError]
    ) -> None:
        upstream.fail("answer", Fault(status=status, retry_after="7"))
        with pytest.raises(error, match="scripted failure") as failed:
            await ask(client, upstream, user("a"))
        assert failed.value.response.headers["retry-after"] == "7"
        assert await ask(client, upstream, user("a"))
        assert [call.status for call in upstream.wait_for("answer", 2, ended=True)] == [status, 200]

    async def test_a_standing_fault_stays_until_healed_and_hits_one_kind(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        upstream.fail_always("embed", Fault(status=500))
        for _ in range(3):
            with pytest.raises(openai.InternalServerError):
                await embed(client, upstream, "x")
        assert await ask(client, upstream, user("a"))
        upstream.heal("embed")
        assert (await embed(client, upstream, "x")).shape == (1, 256)

    async def test_a_call_hangs_until_released(self, client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
        upstream.fail_always("answer", Fault(hang_s=UNTIL_RELEASED))
        asked = [asyncio.create_task(ask(client, upstream, user("a"))) for _ in range(3)]
        calls = await upstream.await_for("answer", 3)
        assert [call.ended for call in calls] == [None] * 3
        assert (upstream.in_flight("answer"), upstream.in_flight_max("answer")) == (3, 3)
        assert not any(task.done() for task in asked)
        upstream.release()
        assert await asyncio.gather(*asked) == ["I do not know yet."] * 3
        await upstream.await_for("answer", 3, ended=True)
        assert (upstream.in_flight("answer"), upstream.in_flight_max("answer")) == (0, 3)

    async def test_a_client_that_hangs_up_is_seen(self, client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
        upstream.fail("answer", Fault(hang_s=UNTIL_RELEASED), Fault(hang_s=UNTIL_RELEASED, after_chunks=2))
        with pytest.raises(openai.APITimeoutError):
            await ask(client.with_options(timeout=0.1), upstream, user("a"))
        chunks = await client.chat.completions.create(model=upstream.chat_model, messages=[user("a")], stream=True)
        read = [await anext(chunks) for _ in range(3)]
        await chunks.close()
        assert [chunk.choices[0].delta.content for chunk in read] == ["", "I", " do"]
        calls = await upstream.await_for("answer", 2, ended=True)
        assert [call.cancelled for call in calls] == [True, True]

    async def test_connections_break_before_and_in_the_middle(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        upstream.fail("answer", Fault(close=True), Fault(cut=True), Fault(close=True, after_chunks=1))
        for _ in range(2):
            with pytest.raises(openai.APIConnectionError):
                await ask(client, upstream, user("a"))
        with pytest.raises(openai.APIConnectionError):
            await stream(client, upstream, "a")
        assert not any(call.cancelled for call in upstream.wait_for("answer", 3, ended=True))

    async def test_an_error_in_the_middle_of_a_stream(self, client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
        upstream.fail("answer", Fault(error=True, after_chunks=2))
        with pytest.raises(openai.APIError, match="scripted failure"):
            await stream(client, upstream, "a")

    async def test_bodies_that_are_not_what_they_should_be(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        upstream.fail("answer", Fault(malformed=True), Fault(garbage=True), Fault(empty_choices=True))
        for _ in range(2):
            with pytest.raises(ValueError, match=r"JSON|codec|Expecting|Unterminated"):
                await ask(client, upstream, user("a"))
        empty = await client.chat.completions.create(model=upstream.chat_model, messages=[user("a")])
        assert empty.choices == []
        upstream.fail("answer", Fault(malformed=True))
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            await stream(client, upstream, "a")

    async def test_reasons_to_finish_and_reasoning_in_three_dialects(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        upstream.fail(
            "answer",
            Fault(finish_reason="content_filter", think="mm hm", content="yes"),
            Fault(finish_reason="length", reasoning="mm hm", reasoning_field="reasoning"),
            Fault(reasoning="mm hm", chunk_delay_s=0.001),
        )
        filtered = await client.chat.completions.create(model=upstream.chat_model, messages=[user("a")])
        assert filtered.choices[0].finish_reason == "content_filter"
        assert filtered.choices[0].message.content == "<think>mm hm</think>yes"
        for field, reason in (("reasoning", "length"), ("reasoning_content", "stop")):
            deltas = [chunk.choices[0] for chunk in await stream(client, upstream, "a") if chunk.choices]
            thought = [choice.delta.model_dump().get(field) for choice in deltas]
            assert [piece for piece in thought if piece] == ["mm", " hm"]
            assert deltas[-1].finish_reason == reason

    @pytest.mark.parametrize("kind", ["embed", "models"])
    async def test_every_kind_can_fail(self, client: AsyncOpenAI, upstream: ScriptedUpstream, kind: Kind) -> None:
        upstream.fail(kind, Fault(status=500))
        with pytest.raises(openai.InternalServerError):
            await (client.models.list() if kind == "models" else embed(client, upstream, "x"))


class TestLife:
    async def test_a_stopped_server_is_down_and_comes_back_on_its_port(
        self, client: AsyncOpenAI, upstream: ScriptedUpstream
    ) -> None:
        upstream.fail("answer", Fault(hang_s=UNTIL_RELEASED))
        hanging = asyncio.create_task(ask(client, upstream, user("a")))
        await upstream.await_for("answer")
        url = upstream.base_url
        upstream.stop()
        with pytest.raises(openai.APIConnectionError):
            await hanging
        with pytest.raises(openai.APIConnectionError):
            await ask(client, upstream, user("a"))
        upstream.start()
        assert upstream.base_url == url
        assert await ask(client, upstream, user("a"))
        assert [call.cancelled for call in upstream.wait_for("answer", 2, ended=True)] == [False, False]

    async def test_what_a_responder_raises_comes_out_on_exit(self) -> None:
        def broken(request: ChatRequest) -> Reply:
            raise LookupError("the test forgot something")

        upstream = ScriptedUpstream()
        upstream.responders["answer"] = broken
        upstream.start()
        async with AsyncOpenAI(base_url=upstream.base_url, api_key="test", max_retries=0) as client:
            with pytest.raises(openai.APIConnectionError):
                await ask(client, upstream, user("a"))
        with pytest.raises(LookupError, match="forgot"):
            upstream.__exit__(None, None, None)

    async def test_the_key_is_checked_and_logged(self, client: AsyncOpenAI, upstream: ScriptedUpstream) -> None:
        upstream.api_key = "right"
        with pytest.raises(openai.AuthenticationError):
            await ask(client, upstream, user("a"))
        assert await ask(client.with_options(api_key="right"), upstream, user("a"))
        assert all(call.authorized for call in upstream.calls)

    async def test_waiting_in_vain_says_what_came(self, upstream: ScriptedUpstream) -> None:
        with pytest.raises(TimeoutError, match="0 of 1 calls of kind 'gate'"):
            upstream.wait_for("gate", timeout=0.01)

    async def test_it_runs_as_a_process_with_its_log_over_http(self) -> None:
        command = [sys.executable, "-m", "tests.upstream", "--dims", "16"]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            url = (await process.stdout.readline()).decode().strip()
            async with AsyncOpenAI(base_url=url, api_key="test", max_retries=0) as client:
                vector = (await client.embeddings.create(model="scripted-embedding", input="x")).data[0].embedding
                log = client.with_options(base_url=url.removesuffix("/v1"))
                ((kind, started, ended, cancelled),) = await log.get("/_calls", cast_to=list[Any])
                await log.delete("/_calls", cast_to=dict[str, Any])
                assert await log.get("/_calls", cast_to=list[Any]) == []
        finally:
            process.terminate()
            assert await process.wait() == 0
        assert math.isclose(sum(x * x for x in vector), 1, rel_tol=1e-5)
        assert (len(vector), kind, cancelled) == (16, "embed", False)
        assert ended >= started
