"""The chat model is listed with and without memory, and found by each of its names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.service.running import Running, running
from tests.upstream import ScriptedUpstream

MODEL = "org/scripted chat"


@pytest.fixture(scope="module")
def service_settings(module_upstream: ScriptedUpstream) -> Iterator[dict[str, object]]:
    before, module_upstream.chat_model = module_upstream.chat_model, MODEL
    yield {}
    module_upstream.chat_model = before


@pytest.fixture
def api(service: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.client.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_list_has_the_model_with_and_without_memory(api: openai.OpenAI) -> None:
    assert [(model.id, model.owned_by) for model in api.models.list()] == [
        (MODEL, "openpersistentmemory"),
        (f"{MODEL}:no-memory", "openpersistentmemory"),
    ]


def test_each_listed_model_is_found_by_its_name(api: openai.OpenAI) -> None:
    """Names of models hold slashes, which clients send as they are or as %2F."""
    for model in api.models.list():
        assert api.models.retrieve(model.id) == model


def test_the_name_is_found_with_a_plain_slash_and_with_one_at_the_end(service: Running) -> None:
    for path in ("/v1/models/org/scripted%20chat", "/v1/models/org%2Fscripted%20chat/"):
        assert service.client.get(path).json()["id"] == MODEL


@pytest.mark.parametrize("name", ["org", "scripted chat", "org/scripted chat:memory", "org/scripted", "a/../../b"])
def test_another_name_is_not_found(api: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        api.models.retrieve(name)
    assert (missing.value.code, missing.value.param, missing.value.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert repr(name) in str(missing.value)


def test_a_model_is_told_to_holders_of_a_key_only(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path, api_keys={"opm-canary": "ann"}) as guarded:
        path = f"/v1/models/{MODEL}"
        assert guarded.client.get(path).status_code == 401
        assert guarded.client.http.get(path, headers={"authorization": "Bearer opm-canary"}).status_code == 200
