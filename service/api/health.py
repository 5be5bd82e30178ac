"""``/health``: alive; ``/embed``, ``/llm``, ``/rerank`` below it: one real call each; ``/ready``: fit to serve."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from domain.errors import EmbeddingError, IndexUnavailable, LedgerError, UpstreamError
from domain.identity import SYSTEM_ID
from domain.memory import Memory
from domain.rerank_scores import read_scores
from service.api.access import key_owner

router = APIRouter(prefix="/health")

_SAMPLE_TOKENS = 16
_SAMPLE_TIMEOUT_S = 60.0
_UNAVAILABLE = 503
_SAMPLE_MEMORY = Memory("", 0, "", 1, datetime(2000, 1, 1, tzinfo=UTC), "health", "ok")


@router.get("")
async def alive() -> dict[str, str]:
    """Tell that the process answers."""
    return {"status": "ok"}


@router.get("/embed")
async def embed(request: Request) -> JSONResponse:
    """Embed one word and tell the dimension."""
    key_owner(request)
    client, settings = request.app.state.services.embeddings, request.app.state.services.settings
    try:
        vectors = await client.embed([client.query_prefix + "health"], timeout_s=settings.emb_timeout_s)
    except EmbeddingError as error:
        return _failing(error, model=client.model)
    return JSONResponse({"status": "ok", "model": client.model, "dimension": vectors.shape[1]})


@router.get("/llm")
async def llm(request: Request) -> JSONResponse:
    """Ask the chat model for a few words and show them."""
    key_owner(request)
    chat = request.app.state.services.chat
    try:
        completion = await chat.complete(
            [{"role": "user", "content": "Say hello."}], timeout_s=_SAMPLE_TIMEOUT_S, max_tokens=_SAMPLE_TOKENS
        )
    except UpstreamError as error:
        return _failing(error, model=chat.model)
    return JSONResponse({"status": "ok", "model": chat.model, "sample": completion.text})


@router.get("/rerank")
async def rerank(request: Request) -> JSONResponse:
    """Let the rerank endpoint score a word, where there is one; tell who reranks in any case."""
    key_owner(request)
    house = request.app.state.services
    strategy, reranker = house.settings.rerank_strategy, house.reranker
    if reranker is None:
        return JSONResponse({"status": "ok", "strategy": strategy})
    try:
        raw = await reranker.scores("health", [_SAMPLE_MEMORY])
    except UpstreamError as error:
        return _failing(error, strategy=strategy, model=reranker.model)
    scores = read_scores(raw, 1)
    if scores is None:
        return _failing("the answer holds no score", strategy=strategy, model=reranker.model)
    return JSONResponse({"status": "ok", "strategy": strategy, "model": reranker.model, "score": scores[0][1]})


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Tell whether turns can be recorded and memory can be searched, and how far the projections are."""
    house = request.app.state.services
    checks: dict[str, Any] = {}
    try:
        checks["ledger"] = {"status": "ok", "position": await asyncio.to_thread(house.ledger.reader.head_position)}
    except LedgerError as error:
        checks["ledger"] = {"status": "failing", "message": str(error)}
    try:
        space = await house.index.space_of(SYSTEM_ID)
        checks["memory"] = {"status": "ok", "model": space.model, "dimensions": space.dimensions}
        if house.index.notice is not None:
            # The configured model's own trouble shows in the follower of the vectors.
            trouble = house.index.trouble(space)
            failing = {"status": "degraded", "code": "embedding_model_mismatch", "message": trouble}
            checks["memory"] |= failing if trouble is not None else {"message": house.index.notice}
    except (EmbeddingError, IndexUnavailable) as error:
        checks["memory"] = {"status": "degraded", "code": error.kind, "message": str(error)}
    except LedgerError as error:
        checks["memory"] = {"status": "degraded", "code": "ledger_unavailable", "message": str(error)}
    checks["index"] = {"status": "failing" if house.index.failing else "ok"}
    checks |= {
        name: {"status": "failing" if follower.failing else "ok", "failures": follower.failures}
        for name, follower in house.followers.items()
    }
    ok = all(check["status"] == "ok" for check in checks.values())
    return JSONResponse({"status": "ok" if ok else "degraded", "checks": checks}, 200 if ok else _UNAVAILABLE)


def _failing(error: Exception | str, **known: Any) -> JSONResponse:
    return JSONResponse({"status": "failing", **known, "message": str(error)}, _UNAVAILABLE)
