"""The real models through the client that everyone uses."""

import base64
import json
import time
from collections.abc import Iterator

import httpx2
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONSchema

from service.local_models.chat_engine import ANSWER_TOKENS
from tests.embedded import EmbeddedProcess, embedded_process

pytestmark = pytest.mark.models

CHAT, EMBEDDINGS = "smollm2-135m-instruct", "multilingual-e5-small"
POEM: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Write a short poem about the sea."}]
GATE: ResponseFormatJSONSchema = {
    "type": "json_schema",
    "json_schema": {
        "name": "memory_gate",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"keep": {"type": "array", "items": {"type": "integer", "enum": [1, 2, 3]}, "maxItems": 3}},
            "required": ["keep"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def running() -> Iterator[EmbeddedProcess]:
    with embedded_process(CHAT) as process:
        yield process


@pytest.fixture(scope="module")
def client(running: EmbeddedProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=running.llm_base_url, api_key="local", max_retries=0) as opened:
        yield opened


def embed(client: openai.OpenAI, *texts: str) -> NDArray[np.float64]:
    answer = client.embeddings.create(model=EMBEDDINGS, input=list(texts))
    return np.array([item.embedding for item in answer.data])


def test_both_models_are_listed_with_their_lengths(client: openai.OpenAI) -> None:
    lengths = {model.id: (model.model_extra or {})["max_model_len"] for model in client.models.list()}
    assert lengths == {CHAT: 8192, EMBEDDINGS: 2048}


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=POEM, max_tokens=12)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


def test_an_answer_that_finds_no_end_is_ended(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=CHAT, messages=POEM, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == ANSWER_TOKENS


def test_a_stream_gives_the_same_words_piece_by_piece(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=CHAT, messages=POEM, max_tokens=12, temperature=0)
    with client.chat.completions.create(
        model=CHAT,
        messages=POEM,
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 5
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_a_schema_binds_an_answer_that_would_be_something_else(client: openai.OpenAI) -> None:
    free = client.chat.completions.create(model=CHAT, messages=POEM, max_tokens=60, seed=1)
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(free.choices[0].message.content or "")
    for seed in range(5):
        bound = client.chat.completions.create(
            model=CHAT, messages=POEM, max_tokens=60, seed=seed, temperature=1.5, response_format=GATE
        )
        answer = json.loads(bound.choices[0].message.content or "")
        assert answer.keys() == {"keep"}
        assert len(answer["keep"]) <= 3
        assert set(answer["keep"]) <= {1, 2, 3}


def test_tokens_are_counted_as_the_chat_counts_them(running: EmbeddedProcess, client: openai.OpenAI) -> None:
    def count(prompt: str) -> int:
        answer = httpx2.post(f"{running.llm_base_url[:-3]}/tokenize", json={"model": CHAT, "prompt": prompt})
        body = answer.raise_for_status().json()
        assert body["max_model_len"] == 8192
        assert body["count"] == len(body["tokens"])
        return int(body["count"])

    def used(content: str) -> int:
        answer = client.chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": content}], max_tokens=1
        )
        assert answer.usage is not None
        return answer.usage.prompt_tokens

    long, short = "one two three 一二三 four", "one"
    assert used(long) - used(short) == count(long) - count(short)


def test_a_prompt_beyond_the_context_is_refused_and_the_next_one_answered(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "word " * 9000}], max_tokens=1)
    assert client.chat.completions.create(model=CHAT, messages=POEM, max_tokens=1).choices


def test_a_model_that_is_not_served_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as chat:
        client.chat.completions.create(model="gpt-9", messages=POEM)
    with pytest.raises(openai.NotFoundError) as embeddings:
        client.embeddings.create(model="bge-m3", input="text")
    assert {chat.value.code, embeddings.value.code} == {"model_not_found"}


def test_vectors_are_the_same_as_numbers_and_as_base64(client: openai.OpenAI) -> None:
    numbers = client.embeddings.create(model=EMBEDDINGS, input="query: tea", encoding_format="float")
    encoded = client.post(
        "/embeddings",
        cast_to=httpx2.Response,
        body={"model": EMBEDDINGS, "input": ["query: tea"], "encoding_format": "base64"},
    ).json()
    decoded = np.frombuffer(base64.b64decode(encoded["data"][0]["embedding"]), dtype="<f4")
    assert decoded.shape == (384,)
    assert np.array_equal(decoded, np.array(numbers.data[0].embedding, dtype=np.float32))
    assert np.linalg.norm(decoded) == pytest.approx(1.0, abs=1e-5)
    assert encoded["usage"]["prompt_tokens"] == numbers.usage.prompt_tokens > 0


def test_a_query_and_a_passage_differ_and_a_bare_text_is_a_query(client: openai.OpenAI) -> None:
    text = "tea in the morning"
    query, passage, bare = embed(client, f"query: {text}", f"passage: {text}", text)
    assert np.allclose(query, bare, atol=1e-6)
    assert query @ passage < 0.99


def test_english_and_chinese_meet_where_they_mean_the_same(client: openai.OpenAI) -> None:
    questions = embed(client, "query: Where does Anna live?", "query: 安娜住在哪里？")
    facts = embed(client, "passage: Anna lives in Lisbon.", "passage: 安娜住在里斯本。", "passage: My car needs oil.")
    scores = questions @ facts.T
    for about_anna_english, about_anna_chinese, about_oil in scores:
        assert min(about_anna_english, about_anna_chinese) > about_oil + 0.03


def test_a_long_list_comes_back_in_its_order(client: openai.OpenAI) -> None:
    texts = [f"{'query' if number % 3 else 'passage'}: note {number}" for number in range(40)]
    together = embed(client, *texts)
    for number in (0, 1, 39):
        assert together[number] @ embed(client, texts[number])[0] > 0.999


def test_texts_no_model_can_hold_are_embedded_by_their_beginning(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=EMBEDDINGS, input="passage: " + "word " * 20_000)
    assert 1900 < answer.usage.prompt_tokens <= 2048


def test_odd_texts_do_no_harm(client: openai.OpenAI) -> None:
    empty, cut, whole = embed(client, "", "tea\0and milk", "tea and milk")
    assert np.isfinite(empty).all()
    assert np.allclose(cut, whole, atol=1e-6)
    with pytest.raises(openai.BadRequestError, match="non-empty list of strings"):
        client.embeddings.create(model=EMBEDDINGS, input=[])


def test_only_loopback_names_and_json_are_let_in(running: EmbeddedProcess) -> None:
    url = f"{running.emb_base_url}/embeddings"
    body = json.dumps({"model": EMBEDDINGS, "input": "text"})
    as_a_form = httpx2.post(url, content=body, headers={"Content-Type": "text/plain"})
    assert as_a_form.status_code == 415
    by_another_name = httpx2.post(url, content=body, headers={"Host": "rebound.example"})
    assert by_another_name.status_code == 400


def test_hanging_up_ends_the_generation(running: EmbeddedProcess, client: openai.OpenAI) -> None:
    endless = {"ignore_eos": True}
    with client.chat.completions.create(
        model=CHAT, messages=POEM, max_tokens=7000, stream=True, extra_body=endless
    ) as stream:
        next(iter(stream))
    wait_until_idle(running)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=2).chat.completions.create(
            model=CHAT, messages=POEM, max_tokens=7000, extra_body=endless
        )
    wait_until_idle(running)


def wait_until_idle(running: EmbeddedProcess) -> None:
    """Return once half a second costs next to no processor time; 7000 tokens would take a minute or more."""
    for _attempt in range(40):
        before = running.cpu_seconds()
        time.sleep(0.5)
        if running.cpu_seconds() - before < 0.1:
            return
    raise AssertionError("the engine is still generating for a client that hung up")
