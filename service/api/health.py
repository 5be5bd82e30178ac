"""``/health``: alive; ``/embed``, ``/llm`` and ``/rerank`` below it: one real call each; ``/ready``: fit to serve."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, Response

from domain.errors import EmbeddingError, IndexUnavailable, LedgerError, UpstreamError
from domain.identity import SYSTEM_ID
from domain.memory import Memory
from domain.rerank_scores import read_scores
from service.api.dependencies import ServicesDep, key_caller
from service.api.responses import Alive, ChatHealth, Check, EmbedHealth, Readiness, RerankHealth
from service.container import Services

router = APIRouter(prefix="/health")

_SAMPLE_TOKENS = 16
_SAMPLE_TIMEOUT_S = 60.0
_UNAVAILABLE = 503
_SAMPLE_MEMORY = Memory("", 0, "", 1, datetime(2000, 1, 1, tzinfo=UTC), "health", "ok")


def _unavailable(model: Any) -> dict[int | str, dict[str, Any]]:
    return {_UNAVAILABLE: {"model": model, "description": "Something does not work; the body says what."}}


@router.get("")
@router.head("", include_in_schema=False)
async def alive() -> Alive:
    """Tell that the process answers."""
    return {"status": "ok"}


@router.get("/embed", dependencies=[Depends(key_caller)], responses=_unavailable(EmbedHealth))
async def embed(services: ServicesDep, response: Response) -> EmbedHealth:
    """Embed one word and tell the dimension."""
    client = services.embeddings
    try:
        vectors = await client.embed([client.query_prefix + "health"], timeout_s=services.settings.emb_timeout_s)
    except EmbeddingError as error:
        response.status_code = _UNAVAILABLE
        return {"status": "failing", "model": client.model, "message": error.told}
    return {"status": "ok", "model": client.model, "dimension": vectors.shape[1], "learned": client.learned}


@router.get("/llm", dependencies=[Depends(key_caller)], responses=_unavailable(ChatHealth))
async def llm(services: ServicesDep, response: Response) -> ChatHealth:
    """Ask the chat model for a few words and show them."""
    chat = services.chat
    try:
        completion = await chat.complete(
            [{"role": "user", "content": "Say hello."}], timeout_s=_SAMPLE_TIMEOUT_S, max_tokens=_SAMPLE_TOKENS
        )
    except UpstreamError as error:
        response.status_code = _UNAVAILABLE
        return {"status": "failing", "model": chat.model, "message": str(error)}
    limit = services.turns.context
    return {
        "status": "ok",
        "model": chat.model,
        "sample": completion.text,
        "learned": chat.dialect.as_json(),
        "context": {"tokens": limit.tokens, "source": limit.source},
    }


@router.get("/rerank", dependencies=[Depends(key_caller)], responses=_unavailable(RerankHealth))
async def rerank(services: ServicesDep, response: Response) -> RerankHealth:
    """Let the rerank endpoint score a word where there is one; tell who reranks in any case."""
    strategy, reranker = services.settings.rerank_strategy, services.reranker
    if reranker is None:
        return {"status": "ok", "strategy": strategy}
    try:
        scores = read_scores((await reranker.scores("health", _SAMPLE_MEMORY.ts, [_SAMPLE_MEMORY])).text, 1)
        message = "the answer holds no score"
    except UpstreamError as error:
        scores, message = None, str(error)
    if scores is None:
        response.status_code = _UNAVAILABLE
        return {"status": "failing", "strategy": strategy, "model": reranker.model, "message": message}
    return {"status": "ok", "strategy": strategy, "model": reranker.model, "score": scores[0][1]}


@router.get("/ready", responses=_unavailable(Readiness))
@router.head("/ready", include_in_schema=False)
async def ready(services: ServicesDep, response: Response) -> Readiness:
    """Tell whether turns can be recorded and memory searched, and whether the background work goes on."""
    checks: dict[str, Check] = {
        "ledger": await _ledger(services),
        "memory": await _memory(services),
        "index": {"status": "failing" if services.index.failing else "ok"},
    }
    for name, follower in services.followers.items():
        checks[name] = {"status": "failing" if follower.failing else "ok", "failures": follower.failures}
        if follower.trouble is not None:
            checks[name]["message"] = follower.trouble
    checks["summaries"] |= await _summaries(services)
    if not all(check["status"] == "ok" for check in checks.values()):
        response.status_code = _UNAVAILABLE
    # Turns go on in spite of the rest, and must get here: one that cannot be summarised is a memory all the same, and
    # only a turn shows whether gate and rerank work again.
    if services.summarizer.degraded and checks["summaries"]["status"] == "ok":
        checks["summaries"] |= {"status": "degraded", "message": "a summary failed, and is tried again: see the log"}
    checks |= {stage: {"status": "degraded", "message": why} for stage, why in services.turns.decision_troubles.items()}
    ok = all(check["status"] == "ok" for check in checks.values())
    return {"status": "ok" if ok else "degraded", "checks": checks}


async def _summaries(services: Services) -> Check:
    """Say how many turns wait for a summary, and whether some of these could not be recorded."""
    summarizer = services.summarizer
    failures = services.followers["summaries"].failures + summarizer.failures
    check: Check = {"status": "ok", "failures": failures}
    if services.followers["summaries"].failing:
        check["status"] = "failing"
    elif summarizer.failing:
        check |= {"status": "failing", "message": "a summary could not be recorded, and is tried again: see the log"}
    try:
        # Not in the background's own thread: what holds that up must not hold up who looks.
        check["waiting"] = await asyncio.to_thread(summarizer.waiting)
    except LedgerError:
        check["status"] = "failing"
    return check


async def _ledger(services: Services) -> Check:
    try:
        return {"status": "ok", "position": await asyncio.to_thread(services.ledger.reader.head_position)}
    except LedgerError as error:
        return {"status": "failing", "message": str(error)}


async def _memory(services: Services) -> Check:
    index = services.index
    try:
        space = await index.space_of(SYSTEM_ID)
        check: Check = {"status": "ok", "model": space.model, "dimensions": space.dimensions}
        if index.notice is None:
            return check
        # Trouble with the configured model itself shows in the follower of the vectors.
        trouble = index.trouble(space)
        if trouble is None:
            return {**check, "message": index.notice}
    except (EmbeddingError, IndexUnavailable) as error:
        return {"status": "degraded", "code": error.kind, "message": str(error)}
    except LedgerError as error:
        return {"status": "degraded", "code": "ledger_unavailable", "message": str(error)}
    return {**check, "status": "degraded", "code": "embedding_model_mismatch", "message": trouble}
