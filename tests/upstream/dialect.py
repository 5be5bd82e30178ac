"""What the scripted upstream accepts and offers: models, templates, limits, refusals, and embeddings.

It refuses what real servers refuse: a system message that is not first, roles that do not alternate, `dimensions` on a
model that is not Matryoshka, and prompts longer than the model takes.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.upstream import responders, wire
from tests.upstream.http import HttpRequest
from tests.upstream.script import Fault

CHAT_MODEL = "scripted-chat"
EMBEDDING_MODEL = "scripted-embedding"
RERANK_MODEL = "scripted-reranker"


@dataclass
class Dialect:
    """The switches; each may be changed while the server runs."""

    dims: int = 256
    """The cosine of unrelated texts is about `dims ** -0.5`."""
    embedding_models: tuple[str, ...] = (EMBEDDING_MODEL,)
    loaded_model: str | None = None
    """Embeds every request, whatever model it names, as servers with one model do."""
    salt: str = ""
    """Changes every vector, as other weights under the same name would."""
    matryoshka: bool = False
    max_input_chars: int | None = None
    nan_word: str | None = None
    """A text with this word gets a vector that is not finite, as after an overflow in half precision."""
    chat_model: str = CHAT_MODEL
    answers_as: str = f"{CHAT_MODEL}-0713"
    """What an answer says to have been made by, often more exact than the name that was asked for."""
    fingerprint: str = "fp_scripted"
    rerank_model: str = RERANK_MODEL
    """The model of `/rerank`, which, like vLLM's, exists with and without `/v1`."""
    max_model_len: int | None = 32_768
    tokenize: bool = True
    """Whether `/tokenize` exists."""
    api_key: str | None = None
    """When set, calls without this bearer token answer 401."""
    strict_template: bool = True
    refuses: tuple[str, ...] = ()
    """Parts of the API that this server refuses."""
    refusal_shape: str = "openai"
    """`openai`, `text` (`{"error": "..."}`), `fastapi`, `message`, or `nameless` for a refusal without a reason."""
    model_card: dict[str, Any] = field(default_factory=dict)
    """More fields of the chat model's entry in the list of models."""
    answers_at: dict[str, Any] = field(default_factory=dict)
    """What other paths answer, such as llama.cpp's `/props`."""
    keep_bodies: bool = True
    """Turn it off for long benchmarks: `calls` then hold no bodies."""

    def admit(self, http: HttpRequest, fault: Fault) -> None:
        """Check the key. Raises `BadRequestError` if it is wrong, or if the fault says so."""
        if self.api_key is not None and http.headers.get("authorization") != f"Bearer {self.api_key}":
            raise wire.BadRequestError("Incorrect API key provided.", 401, code="invalid_api_key")
        if fault.status is not None:
            raise wire.BadRequestError(fault.message, fault.status)

    def models(self) -> dict[str, Any]:
        length = {} if self.max_model_len is None else {"max_model_len": self.max_model_len}
        names = (self.chat_model, *self.embedding_models)
        shared = {"object": "model", "created": 1_700_000_000, "owned_by": "vllm"}
        return {"object": "list", "data": [{"id": name, **shared, **length, **self.model_card} for name in names]}

    def tokenized(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self._check_model(body, (self.chat_model, *self.embedding_models))
        count = responders.tokens(body["prompt"]) if "prompt" in body else wire.prompt_tokens(wire.messages(body))
        return {"count": count, "max_model_len": self.max_model_len, "tokens": list(range(count))}

    def embeddings(self, body: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
        model = self.loaded_model or body.get("model")
        self._check_model({"model": model}, self.embedding_models)
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            message = "input must be a string or a list of strings, not empty"
            raise wire.BadRequestError(message, param="input")
        if self.max_input_chars is not None and max(map(len, texts)) > self.max_input_chars:
            message = f"This model's maximum context length is {self.max_input_chars} characters."
            raise wire.BadRequestError(message, param="input")
        kept = body.get("dimensions")
        if kept is not None and not self.matryoshka:
            message = f"Model {body['model']!r} does not support matryoshka representation"
            raise wire.BadRequestError(message, param="dimensions")
        rows = []
        for index, text in enumerate(texts):
            vector = responders.vector(text, dims=self.dims, seed=f"{model}/{self.salt}")
            if kept is not None:
                vector = vector[:kept] / max(float(np.linalg.norm(vector[:kept])), 1e-9)
            if fault.vector_length is not None:
                vector = np.resize(vector, fault.vector_length)
            if fault.nan or (self.nan_word is not None and self.nan_word in texts[index]):
                vector = np.full_like(vector, np.nan)
            coded = body.get("encoding_format", "float") == "base64"
            value = base64.b64encode(vector.astype("<f4").tobytes()).decode() if coded else vector.tolist()
            value = None if fault.null_vectors else value
            rows.append({"object": "embedding", "index": index, "embedding": value})
        count = sum(map(responders.tokens, texts))
        usage = {"prompt_tokens": count, "total_tokens": count}
        data = [] if fault.empty_choices else rows
        return {"object": "list", "model": body["model"], "data": data, "usage": usage}

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a request of the old API, whose prompt is a text: say it again."""
        self._check_model(body, (self.chat_model,))
        if not isinstance(body.get("prompt"), str):
            raise wire.BadRequestError("prompt must be a string", param="prompt")
        text = f"You wrote: {body['prompt']}"
        return {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1_700_000_000,
            "model": self.answers_as,
            "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}],
            "usage": wire.usage((("user", body["prompt"]),), text),
        }

    def scores(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Score documents by the words they share with the query, best first, as vLLM, Jina and Cohere do."""
        self._check_model(body, (self.rerank_model,))
        query, documents = body.get("query"), body.get("documents")
        if not isinstance(query, str) or not isinstance(documents, list) or not documents:
            raise wire.BadRequestError("query must be a string, documents a list of strings", param="documents")
        scored = [(responders.shared_words(query, text), index) for index, text in enumerate(documents)]
        best = sorted(scored, key=lambda item: (-item[0], item[1]))[: body.get("top_n")]
        results = [{"index": index, "relevance_score": shared / (1 + shared)} for shared, index in best]
        return {"id": "rerank-1", "model": body["model"], "results": results, "usage": {"total_tokens": len(documents)}}

    def _check_model(self, body: Mapping[str, Any], known: tuple[str, ...]) -> None:
        if body.get("model") not in known:
            message = f"The model `{body.get('model')}` does not exist."
            raise wire.BadRequestError(message, 404, param="model", code="model_not_found")

    def _refuse(self, body: Mapping[str, Any]) -> None:
        """Refuse what this server does not take, in the words of servers that do not."""
        structure = wire.response_format(body, "type")
        roles = [role for role, _ in wire.messages(body)]
        refusals = {
            "json_schema": (structure == "json_schema", "'response_format.type' must be 'json_object' or 'text'"),
            "json_object": (structure == "json_object", "This response_format type is unavailable now"),
            "max_tokens": (
                "max_tokens" in body,
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
            ),
            "temperature": (
                "temperature" in body,
                "Unsupported value: 'temperature' does not support 0 with this model.",
            ),
            "stream_options": ("stream_options" in body, "stream_options: Extra inputs are not permitted"),
            "system": ("system" in roles, "System role not supported"),
        }
        for name in self.refuses:
            found, message = refusals[name]
            if found:
                raise wire.BadRequestError(message, 422 if self.refusal_shape == "fastapi" else 400, param=name)

    def check_chat(self, body: Mapping[str, Any]) -> None:
        self._check_model(body, (self.chat_model,))
        messages = wire.messages(body)
        if not messages:
            raise wire.BadRequestError("messages must not be empty", param="messages")
        for name in body:
            if name.startswith("guided_"):
                raise wire.BadRequestError(f"{name} was removed, use response_format", param=name)
        self._refuse(body)
        if self.strict_template:
            # Templates that know tools take a call and its result between the question and the answer.
            roles = [message["role"] for message in body["messages"] if not _of_tools(message)]
            if "system" in roles[1:]:
                raise wire.BadRequestError("System message must be at the beginning.", param="messages")
            turns = roles[1:] if roles[0] == "system" else roles
            if turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
                message = "Conversation roles must alternate user/assistant/user/..., and end with user"
                raise wire.BadRequestError(message, param="messages")
        room = body.get("max_completion_tokens") or body.get("max_tokens") or 0
        asked, most = wire.prompt_tokens(messages) + room, self.max_model_len
        if most is not None and asked > most:
            message = f"This model's maximum context length is {most} tokens, {asked} were asked for."
            raise wire.BadRequestError(message, param="messages", code="context_length_exceeded")


def _of_tools(message: Mapping[str, Any]) -> bool:
    return message["role"] == "tool" or bool(message.get("tool_calls"))
