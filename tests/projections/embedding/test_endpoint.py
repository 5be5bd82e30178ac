"""Each way in which an embedding endpoint can fail becomes the one error that says what to do about it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from domain.errors import EmbeddingError, EmbeddingMisfit, EmbeddingRejected, EmbeddingTooLong, EmbeddingUnavailable
from projections.embedding.endpoint import EmbeddingClient
from projections.settings import ProjectionSettings
from tests.projections.world import settings_for
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

TIMEOUT_S = 10.0


async def embed(settings: ProjectionSettings, *texts: str, timeout_s: float = TIMEOUT_S) -> np.ndarray:
    client = EmbeddingClient(settings)
    try:
        return await client.embed(texts, timeout_s=timeout_s)
    finally:
        await client.close()


async def test_vectors_have_length_one_and_the_order_of_their_texts(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    settings = settings_for(tmp_path, upstream)
    together = await embed(settings, "the ferry", "a violin")
    assert together.shape == (2, 64)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(together[1], (await embed(settings, "a violin"))[0])


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (Fault(status=400), EmbeddingRejected, "refused the text"),
        (Fault(status=413), EmbeddingTooLong, "413"),
        (Fault(status=422), EmbeddingRejected, "422"),
        (Fault(status=401), EmbeddingMisfit, "OPENAI_API_KEY"),
        (Fault(status=403), EmbeddingMisfit, "OPENAI_API_KEY"),
        (Fault(status=404), EmbeddingMisfit, "EMB_MODEL"),
        (Fault(status=402), EmbeddingUnavailable, "402"),
        (Fault(status=408), EmbeddingUnavailable, "408"),
        (Fault(status=409), EmbeddingUnavailable, "409"),
        (Fault(status=423), EmbeddingUnavailable, "423"),
        (Fault(status=429, retry_after="1"), EmbeddingUnavailable, "429"),
        (Fault(status=500), EmbeddingUnavailable, "500"),
        (Fault(status=503), EmbeddingUnavailable, "503"),
        (Fault(close=True), EmbeddingUnavailable, "EMB_BASE_URL"),
        (Fault(cut=True), EmbeddingUnavailable, "EMB_BASE_URL"),
        (Fault(malformed=True), EmbeddingMisfit, "cannot be read"),
        (Fault(garbage=True), EmbeddingMisfit, "cannot be read"),
        (Fault(empty_choices=True), EmbeddingMisfit, "cannot be read"),
        (Fault(null_vectors=True), EmbeddingMisfit, "cannot be read"),
        (Fault(nan=True), EmbeddingRejected, "not finite"),
    ],
)
async def test_failures(
    tmp_path: Path, upstream: ScriptedUpstream, fault: Fault, error: type[EmbeddingError], says: str
) -> None:
    upstream.fail_always("embed", fault)
    with pytest.raises(EmbeddingError, match=says) as raised:
        await embed(settings_for(tmp_path, upstream, openai_api_key="sk-secret"), "my diary")
    assert type(raised.value) is error
    assert "diary" not in str(raised.value)
    assert "sk-secret" not in str(raised.value)
    assert len(upstream.calls_of("embed")) == 1, "nothing is retried here"


async def test_a_silent_endpoint(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.fail("embed", Fault(hang_s=UNTIL_RELEASED))
    with pytest.raises(EmbeddingUnavailable, match=r"within 0\.2 s"):
        await embed(settings_for(tmp_path, upstream), "a", timeout_s=0.2)


async def test_nobody_listens(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    settings = settings_for(tmp_path, upstream)
    upstream.stop()
    with pytest.raises(EmbeddingUnavailable, match="cannot be reached"):
        await embed(settings, "a")


async def test_an_unknown_model(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with pytest.raises(EmbeddingMisfit, match="EMB_MODEL = 'absent', or EMB_BASE_URL is wrong"):
        await embed(settings_for(tmp_path, upstream, emb_model="absent"), "a")


async def test_a_matryoshka_model_is_asked_for_the_wanted_length(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.matryoshka = True
    vectors = await embed(settings_for(tmp_path, upstream, embedding_dims=16), "a ferry")
    assert vectors.shape == (1, 16)
    assert [call.body.get("dimensions") for call in upstream.calls_of("embed")] == [None, 16]


async def test_a_length_the_model_cannot_give(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with pytest.raises(EmbeddingMisfit, match="EMBEDDING_DIMS = 16, but emb-old at EMB_BASE_URL gives 64"):
        await embed(settings_for(tmp_path, upstream, embedding_dims=16), "a ferry")


async def test_the_length_it_has_is_not_asked_for(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    await embed(settings_for(tmp_path, upstream, embedding_dims=64), "a ferry")
    assert ["dimensions" in call.body for call in upstream.calls_of("embed")] == [False]


async def test_vectors_travel_as_base64(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    await embed(settings_for(tmp_path, upstream), "a ferry")
    assert [call.body.get("encoding_format") for call in upstream.calls_of("embed")] == ["base64"]


async def test_an_endpoint_that_refuses_base64_is_asked_for_numbers_from_then_on(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.fail("embed", Fault(status=400, message="encoding_format: base64 is not supported"))
    client = EmbeddingClient(settings_for(tmp_path, upstream))
    try:
        for _ in range(2):
            assert (await client.embed(["a ferry"], timeout_s=TIMEOUT_S)).shape == (1, 64)
        assert client.learned == {"encoding_format": "not sent"}
    finally:
        await client.close()
    assert ["encoding_format" in call.body for call in upstream.calls_of("embed")] == [True, False, False]


@pytest.mark.parametrize(
    ("message", "most"),
    [
        ("batch size 5 > maximum allowed batch size 2", 2),
        ("at most 3 inputs are allowed", 3),
        ("Too many inputs in one request", 2),
    ],
)
async def test_a_batch_larger_than_the_endpoint_takes_is_split_from_then_on(
    tmp_path: Path, upstream: ScriptedUpstream, message: str, most: int
) -> None:
    upstream.fail("embed", Fault(status=413, message=message))
    texts = [f"ferry number {number}" for number in range(5)]
    client = EmbeddingClient(settings_for(tmp_path, upstream))
    try:
        vectors = await client.embed(texts, timeout_s=TIMEOUT_S)
        await client.embed(texts, timeout_s=TIMEOUT_S)
    finally:
        await client.close()
    sizes = [len(call.body["input"]) for call in upstream.calls_of("embed")]
    assert sizes[0] == 5
    assert max(sizes[1:]) == most
    np.testing.assert_array_equal(vectors[4], (await embed(settings_for(tmp_path, upstream), texts[4]))[0])


@pytest.mark.parametrize("text", ["", "  ", "\n"])
async def test_an_empty_text_has_a_vector(tmp_path: Path, upstream: ScriptedUpstream, text: str) -> None:
    vectors = await embed(settings_for(tmp_path, upstream), text, "a ferry")
    assert vectors.shape == (2, 64)


async def test_a_long_text_is_cut_before_it_is_sent(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    await embed(settings_for(tmp_path, upstream), "ferry " * 10_000)
    assert len(upstream.calls_of("embed")[0].body["input"][0]) == 8000


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"error": {"message": "input is too large to process. increase the physical batch size"}}'),
        (400, b'{"detail": "maximum context length is 512 tokens"}'),
        (200, b'{"error": "the input length exceeds the context length"}'),
    ],
)
async def test_a_text_that_is_too_long_is_rejected_however_it_is_said(
    tmp_path: Path, upstream: ScriptedUpstream, status: int, body: bytes
) -> None:
    upstream.fail("embed", Fault(status=status, raw=body))
    with pytest.raises(EmbeddingTooLong) as raised:
        await embed(settings_for(tmp_path, upstream), "a ferry")
    assert raised.value.reason
    assert raised.value.reason in raised.value.told
    assert raised.value.reason not in str(raised.value), "the reason may quote a person, and logs print the message"


LONG = "The ferry to Lisbon leaves at nine. " * 60
SAYS_TOO_LONG = {
    "vLLM": (400, b'{"error": {"message": "maximum context length is 64 tokens"}}'),
    "llama.cpp": (500, b'{"error": {"message": "input is too large to process"}}'),
    "TEI": (413, b'{"error": "inputs must have less than 64 tokens", "error_type": "Validation"}'),
    "Ollama": (200, b'{"error": "the input length exceeds the context length"}'),
    "without a reason": (422, b"{}"),
}


@pytest.mark.parametrize("name", SAYS_TOO_LONG)
async def test_a_text_too_long_costs_refused_calls_once(tmp_path: Path, upstream: ScriptedUpstream, name: str) -> None:
    status, body = SAYS_TOO_LONG[name]
    client = EmbeddingClient(settings_for(tmp_path, upstream))
    try:
        await client.embed(["a ferry"], timeout_s=TIMEOUT_S)
        upstream.fail("embed", *[Fault(status=status, raw=body)] * 2)
        first = await client.embed_query(LONG, timeout_s=TIMEOUT_S)
        assert [call.status for call in upstream.calls_of("embed")[1:]] == [status, status, 200]
        [sent] = upstream.calls_of("embed")[-1].body["input"]
        assert LONG.startswith(sent)
        assert client.learned["input_length"] == "the first 256 tokens of a text, as estimated"
        again = await client.embed([LONG, LONG + "And back.", "a ferry"], timeout_s=TIMEOUT_S)
        assert len(upstream.calls_of("embed")) == 5, "what is too long is known by now"
        assert upstream.calls_of("embed")[-1].body["input"] == [sent, sent, "a ferry"]
        assert np.allclose(first[0], again[0])
    finally:
        await client.close()


@pytest.mark.parametrize("fault", [Fault(nan=True), Fault(status=400, message="the content policy forbids this")])
async def test_a_text_refused_for_another_reason_shortens_no_other(
    tmp_path: Path, upstream: ScriptedUpstream, fault: Fault
) -> None:
    client = EmbeddingClient(settings_for(tmp_path, upstream))
    try:
        upstream.fail("embed", fault)
        assert (await client.embed([LONG], timeout_s=TIMEOUT_S)).shape == (1, 64)
        assert client.learned == {}
        await client.embed([LONG], timeout_s=TIMEOUT_S)
        assert upstream.calls_of("embed")[-1].body["input"] == [LONG]
    finally:
        await client.close()


async def test_a_refused_text_takes_no_longer_than_its_timeout(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.fail_always("embed", Fault(status=400, message="too long", hang_s=0.2))
    client = EmbeddingClient(settings_for(tmp_path, upstream))
    try:
        began = time.monotonic()
        with pytest.raises(EmbeddingError):
            await client.embed([LONG], timeout_s=0.5)
        assert time.monotonic() - began < 1
    finally:
        await client.close()


async def test_an_error_inside_a_status_of_200_is_told(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.fail("embed", Fault(raw=b'{"error": {"message": "no GPU left for sk-secret-123"}}'))
    with pytest.raises(EmbeddingUnavailable) as raised:
        await embed(settings_for(tmp_path, upstream, openai_api_key="sk-secret-123"), "a ferry")
    assert raised.value.told.endswith("no GPU left for ***")


async def test_a_refusal_without_a_reason_is_met_without_base64(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    upstream.fail("embed", Fault(status=400, raw=b"{}"))
    assert (await embed(settings_for(tmp_path, upstream), "a ferry")).shape == (1, 64)
    assert ["encoding_format" in call.body for call in upstream.calls_of("embed")] == [True, False]


async def test_a_text_too_long_for_a_physical_batch_is_not_taken_for_too_many_texts(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.fail("embed", Fault(status=400, message="input is too large, increase the physical batch size"))
    client = EmbeddingClient(settings_for(tmp_path, upstream))
    try:
        with pytest.raises(EmbeddingRejected):
            await client.embed(["a ferry", "a violin"], timeout_s=TIMEOUT_S)
        assert client.learned == {}
    finally:
        await client.close()
