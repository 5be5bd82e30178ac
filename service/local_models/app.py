"""The endpoints, in vLLM's format: chat is relayed to the chat engine, embeddings are computed here.

Chat requests and answers pass through unchanged; when a client hangs up, the engine's connection is closed, which stops
the generation. An unknown model name is a 404, not an answer from another model, because the ledger records which model
wrote what. There is no key, so requests must use a loopback host name and JSON, which a web page from elsewhere cannot
send here without a preflight request.
"""

import base64
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2
import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.local_models import embedder as e5
from service.local_models.chat_engine import ANSWER_TOKENS, ChatEngine
from service.local_models.embedder import Embedder

log = logging.getLogger(__name__)

# OpenAI's limit for one request.
INPUTS_MAX = 2048


def create_app(chat: ChatEngine | None, embedder: Embedder | None) -> Starlette:
    """An application that serves the given models; without one, every model of that kind is unknown (404)."""
    engine = httpx2.AsyncClient(
        base_url=chat.base_url if chat else "",
        headers=chat.headers if chat else None,
        # No read timeout: the client's own timeout ends a generation by hanging up.
        timeout=httpx2.Timeout(None, connect=5.0),
        limits=httpx2.Limits(max_connections=None),
        trust_env=False,
    )
    started = int(time.time())

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with engine:
            yield

    async def health(_request: Request) -> Response:
        served = {"chat": chat and chat.name, "embeddings": e5.NAME if embedder else None}
        return JSONResponse({"status": "ok", **served})

    async def models(_request: Request) -> Response:
        cards = [(chat.name, chat.max_model_len)] if chat else []
        cards += [(e5.NAME, e5.TOKENS_MAX)] if embedder else []
        common = {"object": "model", "created": started, "owned_by": "local"}
        return JSONResponse(
            {
                "object": "list",
                "data": [{"id": name, **common, "max_model_len": length} for name, length in cards],
            }
        )

    async def tokenize(request: Request) -> Response:
        body = await _json_body(request)
        if chat is None or body.get("model", chat.name) != chat.name:
            raise _unknown_model(body.get("model"), chat.name if chat else None)
        prompt = body.get("prompt")
        if not isinstance(prompt, str):
            raise HTTPException(400, "prompt must be a string.")
        asked = {"content": prompt, "add_special": bool(body.get("add_special_tokens", True))}
        answer = await engine.post("/tokenize", json=asked)
        tokens = answer.raise_for_status().json()["tokens"]
        return JSONResponse({"count": len(tokens), "max_model_len": chat.max_model_len, "tokens": tokens})

    async def embeddings(request: Request) -> Response:
        body = await _json_body(request)
        if embedder is None or body.get("model") != e5.NAME:
            raise _unknown_model(body.get("model"), e5.NAME if embedder else None)
        if body.get("dimensions", e5.DIMENSIONS) != e5.DIMENSIONS:
            raise HTTPException(400, f"dimensions must be {e5.DIMENSIONS}: this model has no other.")
        encoding = body.get("encoding_format", "float")
        if encoding not in ("float", "base64"):
            raise HTTPException(400, "encoding_format must be float or base64.")
        result = await embedder.embed(_inputs(body.get("input")))
        vectors = [_encoded(vector, encoding) for vector in result.vectors]
        return JSONResponse(
            {
                "object": "list",
                "model": e5.NAME,
                "data": [
                    {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
                ],
                "usage": {"prompt_tokens": result.tokens, "total_tokens": result.tokens},
            }
        )

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/chat/completions", _ChatRelay(chat, engine), methods=["POST"]),
            Route("/tokenize", tokenize, methods=["POST"]),
            Route("/v1/embeddings", embeddings, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
        exception_handlers={HTTPException: _refused, Exception: _failed},
        lifespan=lifespan,
    )


class _ChatRelay:
    """Relays a chat request while a second task watches for the client to hang up."""

    def __init__(self, chat: ChatEngine | None, engine: httpx2.AsyncClient) -> None:
        self._chat = chat
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await _json_body(request)
        if self._chat is None or body.get("model") != self._chat.name:
            raise _unknown_model(body.get("model"), self._chat.name if self._chat else None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_at_hang_up, receive, tasks.cancel_scope)
            if body.get("max_tokens") is None and body.get("max_completion_tokens") is None:
                body["max_tokens"] = ANSWER_TOKENS
            await self._relay(json.dumps(body).encode(), send)
            tasks.cancel_scope.cancel()

    async def _relay(self, body: bytes, send: Send) -> None:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        async with self._engine.stream("POST", "/v1/chat/completions", content=body, headers=headers) as answer:
            content_type = answer.headers.get("content-type", "application/json").encode("latin-1")
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status_code,
                    "headers": [(b"content-type", content_type), (b"cache-control", b"no-store")],
                }
            )
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _cancel_at_hang_up(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _json_body(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send the request as Content-Type: application/json.")
    try:
        body = json.loads(await request.body())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "The request body must be a JSON object.")
    return body


def _inputs(value: object) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise HTTPException(400, "input must be a string or a non-empty list of strings.")
    if len(texts) > INPUTS_MAX:
        raise HTTPException(400, f"input has {len(texts)} texts; send at most {INPUTS_MAX} at once.")
    return texts


def _encoded(vector: np.ndarray[Any, np.dtype[np.float32]], encoding: str) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    floats: list[float] = vector.tolist()
    return floats


def _unknown_model(asked: object, served: str | None) -> HTTPException:
    serves = f"this endpoint serves {served}" if served else "none is served here"
    return HTTPException(404, f"The model {str(asked)[:100]!r} does not exist; {serves}.")


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "model_not_found" if error.status_code == 404 and "model" in error.detail else None
    return _openai_error(error.status_code, error.detail, "invalid_request_error", code)


async def _failed(_request: Request, error: Exception) -> Response:
    log.error("A request failed: %s", type(error).__name__)
    return _openai_error(500, "The embedded model failed; its log names the error.", "server_error", None)


def _openai_error(status: int, message: str, kind: str, code: str | None) -> Response:
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)
