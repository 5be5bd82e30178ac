"""Embeddings and completions of the old API are passed on as they are, and leave nothing in the ledger."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest

from tests.service.running import Running, events_of, running
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

PROMPT = "Once upon a time"
KEY = "opm-canary-key"


@pytest.fixture
def api(service: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.client.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def refused(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


class TestEmbeddings:
    def test_openai_python_gets_what_the_endpoint_gives(self, service: Running, api: openai.OpenAI) -> None:
        """Its client asks for base64 and decodes it, unless it is told otherwise."""
        head = service.ledger.reader.head_position()
        model = service.upstream.embedding_model
        coded = api.embeddings.create(model=model, input=["one dog", "two cats"])
        plain = api.embeddings.create(model=model, input=["one dog", "two cats"], encoding_format="float")
        assert [call.body["encoding_format"] for call in service.upstream.calls_of("embed")] == ["base64", "float"]
        for one, other in zip(coded.data, plain.data, strict=True):
            assert np.allclose(one.embedding, other.embedding)
        assert coded.usage.total_tokens == 4
        assert service.ledger.reader.head_position() == head

    def test_base64_comes_as_base64_and_unknown_fields_go_along(self, service: Running) -> None:
        body = {"input": "dog", "encoding_format": "base64", "truncate_prompt_tokens": 7, "user": "ann"}
        answer = service.client.http.post("/v1/embeddings", json=body)
        assert len(base64.b64decode(answer.json()["data"][0]["embedding"])) == 4 * service.upstream.dims
        [call] = service.upstream.calls_of("embed")
        assert call.body == {**body, "model": service.upstream.embedding_model}

    @pytest.mark.parametrize("model", [None, ""])
    def test_a_request_that_names_no_model_gets_the_configured_one(self, service: Running, model: str | None) -> None:
        answer = service.client.http.post("/v1/embeddings", json={"input": "dog", "model": model})
        assert answer.json()["model"] == service.upstream.embedding_model

    def test_another_model_is_asked_for_by_its_name(self, service: Running) -> None:
        service.upstream.embedding_models += ("other",)
        try:
            answer = service.client.http.post("/v1/embeddings", json={"input": "dog", "model": "other"})
        finally:
            service.upstream.embedding_models = service.upstream.embedding_models[:-1]
        assert answer.json()["model"] == "other"

    def test_a_model_that_the_endpoint_does_not_know(self, service: Running) -> None:
        error = refused(service.client.http.post("/v1/embeddings", json={"input": "dog", "model": "none"}), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "'none'" in error["message"]


REFUSED = {
    "a refusal": (Fault(status=400, message="input must not be empty"), 400, "upstream_rejected"),
    "a failure": (Fault(status=500), 502, "upstream_failed"),
    "a limit": (Fault(status=429, retry_after="7"), 429, "rate_limit_exceeded"),
    "a wrong key": (Fault(status=401), 502, "upstream_refused_key"),
    "no answer": (Fault(close=True), 502, "upstream_unreachable"),
    "no JSON": (Fault(raw=b"<html>", raw_type="text/html"), 502, "upstream_unreadable"),
    "a list": (Fault(raw=b"[]"), 502, "upstream_unreadable"),
    "half a JSON": (Fault(raw=b'{"data": ['), 502, "upstream_unreadable"),
    "an error with status 200": (Fault(raw=b'{"error": {"message": "out of memory"}}'), 502, "upstream_failed"),
}


@pytest.mark.parametrize("path", ["embeddings", "completions", "streamed"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_the_endpoint_refuses_is_told_in_openais_shape(service: Running, path: str, name: str) -> None:
    fault, status, code = REFUSED[name]
    service.upstream.fail("embed" if path == "embeddings" else "completion", fault)
    body = {"input": "dog"} if path == "embeddings" else {"prompt": PROMPT, "stream": path == "streamed"}
    response = service.client.http.post(f"/v1/{'embeddings' if path == 'embeddings' else 'completions'}", json=body)
    error = refused(response, status)
    assert error["code"] == code
    assert response.headers.get("retry-after") == fault.retry_after


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/completions"])
class TestRequests:
    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"dog"', b'{"input": "\\ud800"}', b'{"a": NaN}'])
    def test_what_is_no_json_object_is_refused(self, service: Running, path: str, content: bytes) -> None:
        error = refused(service.client.http.post(path, content=content), 400)
        assert error["param"] == "body"
        assert not service.upstream.calls_of("embed", "completion")

    def test_they_need_a_key_where_there_are_keys(self, upstream: ScriptedUpstream, tmp_path: Path, path: str) -> None:
        with running(upstream, tmp_path, api_keys={KEY: "ann"}) as guarded:
            guarded.settle()
            upstream.forget_calls()
            body = {"input": "dog", "prompt": PROMPT}
            assert refused(guarded.client.http.post(path, json=body), 401)["code"] == "invalid_api_key"
            assert not upstream.calls_of("embed", "completion")
            allowed = guarded.client.http.post(path, json=body, headers={"authorization": f"Bearer {KEY}"})
            assert allowed.status_code == 200

    def test_another_host_name_is_refused(self, service: Running, path: str) -> None:
        headers = {"host": "evil.example"}
        body = {"input": "dog", "prompt": PROMPT}
        assert refused(service.client.http.post(path, json=body, headers=headers), 403)["code"] == "host_not_allowed"


class TestCompletions:
    @pytest.mark.parametrize("model", ["gpt-3.5-turbo-instruct", "scripted-chat"])
    def test_the_chat_model_answers_whatever_the_request_calls_it(
        self, service: Running, api: openai.OpenAI, model: str
    ) -> None:
        head = service.ledger.reader.head_position()
        answer = api.completions.create(model=model, prompt=PROMPT, max_tokens=5, extra_body={"top_k": 1})
        assert answer.choices[0].text == f"You wrote: {PROMPT}"
        assert answer.usage is not None
        [call] = service.upstream.calls_of("completion")
        assert call.body == {"model": service.upstream.chat_model, "prompt": PROMPT, "max_tokens": 5, "top_k": 1}
        assert service.ledger.reader.head_position() == head

    def test_a_stream(self, service: Running, api: openai.OpenAI) -> None:
        chunks = list(api.completions.create(model="any", prompt=f"{PROMPT}\u2028", stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == f"You wrote: {PROMPT}\u2028"
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
        assert service.upstream.calls_of("completion")[-1].body["stream"] is True

    def test_one_json_to_a_request_for_a_stream(self, service: Running, api: openai.OpenAI) -> None:
        answer = {"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": "Yes."}]}
        service.upstream.fail("completion", Fault(raw=json.dumps(answer, indent=1).encode()))
        [chunk] = api.completions.create(model="any", prompt=PROMPT, stream=True)
        assert chunk.choices[0].text == "Yes."

    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            (Fault(close=True, after_chunks=2), "upstream_broke_off"),
            (Fault(error=True, after_chunks=2), "upstream_failed"),
        ],
    )
    def test_a_break_in_mid_stream_is_an_error_event(self, service: Running, fault: Fault, code: str) -> None:
        service.upstream.fail("completion", fault)
        body = {"prompt": PROMPT, "stream": True}
        with service.client.http.stream("POST", "/v1/completions", json=body) as response:
            *said, last = list(events_of(response))
        assert [event["choices"][0]["text"] for event in said if event] == ["You", " wrote:"]
        assert last is not None
        assert last["error"]["code"] == code
        assert set(last["error"]) == {"message", "type", "param", "code"}

    def test_an_endpoint_that_takes_its_time_is_waited_for_with_comments(self, service: Running) -> None:
        service.upstream.fail("completion", Fault(hang_s=1.5))
        body = {"prompt": PROMPT, "stream": True}
        with service.client.http.stream("POST", "/v1/completions", json=body) as response:
            text = "".join(response.iter_text())
        assert text.startswith(": working")
        assert text.endswith("data: [DONE]\n\n")

    @pytest.mark.parametrize("stream", [False, True])
    def test_an_endpoint_without_the_old_api_is_named(self, service: Running, stream: bool) -> None:
        service.upstream.fail("completion", Fault(status=404, message="this is a chat model"))
        response = service.client.http.post("/v1/completions", json={"prompt": PROMPT, "stream": stream})
        error = refused(response, 404)
        assert "/v1/chat/completions" in error["message"]
        assert "this is a chat model" in error["message"]

    @pytest.mark.parametrize("stream", [False, True])
    def test_who_hangs_up_makes_the_endpoint_stop(self, service: Running, stream: bool) -> None:
        service.upstream.fail("completion", Fault(hang_s=UNTIL_RELEASED))
        with pytest.raises(httpx2.TimeoutException):
            service.client.http.post("/v1/completions", json={"prompt": PROMPT, "stream": stream}, timeout=0.3)
        [call] = service.upstream.wait_for("completion", ended=True)
        assert call.cancelled
