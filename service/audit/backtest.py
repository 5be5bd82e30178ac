"""A backtest: replay a user's past questions with other settings and compare what is chosen.

Memory moves forward through the ledger once, question by question, in the order in which they were searched. A few
gate and rerank decisions run at a time. Nothing is written to the ledger.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from domain.agreement import Comparison, compare
from domain.audit_reader import AuditReader
from domain.errors import EmbeddingRejected, OpmError, UpstreamError
from domain.identity import file_name
from domain.prompts import load_prompts
from domain.retrieval import Candidate
from projections.search.as_of import SearchAsOf
from projections.search.dense_as_of import DenseAsOf
from service.audit.backtest_results import ResultsFile, backtests_dir
from service.audit.recall import open_cache, open_client
from service.audit.recorded_question import RecordedQuestion, recorded_questions
from service.audit.replay import Replayer, ReplayResult, Variant
from service.chat_client import ChatClient
from service.context_limit import ContextLimit
from service.reranker import Reranker
from service.settings import ServiceSettings

log = logging.getLogger(__name__)

_PROBE = "dimension"
_PROBE_TIMEOUT_S = 30.0
_FAILURES_IN_A_ROW_MAX = 3
_KEY_CHARS = 12


@dataclass(frozen=True, slots=True)
class Period:
    """Which questions to replay: one user's, at positions in (``after``, ``until``], the first ``limit``."""

    user_id: str
    after: int
    until: int
    limit: int | None = None


@dataclass
class Backtest:
    """What a run found. ``results`` and ``comparisons`` are in ledger order.

    ``left_out`` counts questions that cannot be replayed, by reason. ``unanswered`` are those for which the chat model
    gave no decision in this run. ``resumed`` counts those that the results file already had. ``trouble`` says why a run
    ended early.
    """

    period: Period
    variant: Variant
    embedding_model: str
    path: Path
    results: list[ReplayResult] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unanswered: list[str] = field(default_factory=list)
    trouble: str | None = None
    resumed: int = 0
    embedded: int = 0
    questions_embedded: int = 0

    @property
    def comparisons(self) -> list[Comparison]:
        return [compare(result.then, result.now) for result in self.results]

    @property
    def complete(self) -> bool:
        return self.trouble is None and not self.unanswered


async def run_backtest(
    reader: AuditReader,
    settings: ServiceSettings,
    period: Period,
    variant: Variant,
    *,
    name: str | None = None,
    fresh: bool = False,
    concurrency: int = 4,
    on_progress: Callable[[int], object] = lambda _done: None,
    on_embedded: Callable[[int], object] = lambda _texts: None,
) -> Backtest:
    """Replay the questions of ``period`` that the results file lacks; return all results of the period.

    ``settings`` name the embedding model to search with. ``on_progress`` is called with the number of questions just
    done, ``on_embedded`` with the number of memory texts just embedded. A failing endpoint ends the run early and sets
    ``trouble``; the next run continues. Raises an :class:`EmbeddingError` when the embedding endpoint does not answer
    at all.
    """
    async with AsyncExitStack() as opened:
        cache = opened.enter_context(open_cache(settings))
        embeddings = await opened.enter_async_context(open_client(settings))
        chat = ChatClient(settings)
        opened.push_async_callback(chat.close)
        gate_chat = ChatClient(settings.model_copy(update={"llm_model": variant.gate_model or settings.llm_model}))
        opened.push_async_callback(gate_chat.close)
        reranker = None
        if settings.rerank_base_url is not None and settings.rerank_model is not None:
            reranker = Reranker(settings)
            opened.push_async_callback(reranker.close)
        probe = await embeddings.embed([embeddings.query_prefix + _PROBE], timeout_s=_PROBE_TIMEOUT_S)
        space = embeddings.space(probe.shape[1])
        vectors = DenseAsOf(
            reader,
            embeddings,
            cache,
            space,
            period.user_id,
            batch=settings.emb_batch,
            on_embedded=on_embedded,
        )
        memory = opened.enter_context(closing(SearchAsOf(reader, period.user_id, vectors)))
        replayer = Replayer(
            reader,
            memory,
            chat,
            gate_chat,
            reranker,
            load_prompts(settings.prompts_dir),
            settings,
            variant,
            context_tokens=await _context_tokens(gate_chat, settings),
        )
        file_stem = file_name(name or replayer.key[:_KEY_CHARS])
        path = backtests_dir(settings.users_dir, period.user_id) / f"{file_stem}.jsonl"
        if fresh:
            path.unlink(missing_ok=True)
        backtest = Backtest(period, variant, space.model, path)
        with ResultsFile(path, replayer.key) as file:
            await _replay_all(reader, replayer, file, backtest, concurrency, on_progress)
        backtest.embedded = vectors.embedded
    return backtest


async def _replay_all(
    reader: AuditReader,
    replayer: Replayer,
    file: ResultsFile,
    backtest: Backtest,
    concurrency: int,
    on_progress: Callable[[int], object],
) -> None:
    questions = await asyncio.to_thread(_questions, reader, backtest)
    wanted = [question for question in questions if question.question_id not in file.known]
    backtest.resumed = len(questions) - len(wanted)
    on_progress(backtest.resumed + backtest.left_out.total())
    places = asyncio.Semaphore(concurrency)
    failures = 0

    async def decide(question: RecordedQuestion, candidates: list[Candidate]) -> None:
        nonlocal failures
        try:
            file.add(await replayer.decide(question, candidates))
            failures = 0
        except UpstreamError as error:
            failures += 1
            backtest.unanswered.append(question.question_id)
            backtest.trouble = str(error) if failures >= _FAILURES_IN_A_ROW_MAX else backtest.trouble
        finally:
            places.release()
        on_progress(1)

    async with asyncio.TaskGroup() as deciding:
        for question in wanted:
            await places.acquire()
            if backtest.trouble is not None:
                break
            try:
                candidates = await replayer.candidates(question)
            except EmbeddingRejected:
                backtest.left_out["its question cannot be embedded"] += 1
                places.release()
                on_progress(1)
                continue
            except OpmError as error:
                backtest.trouble = str(error)
                break
            backtest.questions_embedded += replayer.embeds(question)
            deciding.create_task(decide(question, candidates))
    known = {question.question_id for question in questions}
    backtest.results = sorted(
        (result for key, result in file.known.items() if key in known), key=lambda result: result.position
    )


def _questions(reader: AuditReader, backtest: Backtest) -> list[RecordedQuestion]:
    """Return the questions to replay, in the order in which memory was searched; count those that cannot be."""
    period = backtest.period
    found: list[RecordedQuestion] = []
    for item in recorded_questions(reader, period.user_id, after=period.after, until=period.until, limit=period.limit):
        if isinstance(item, str):
            backtest.left_out[item] += 1
        else:
            found.append(item)
    # Of two concurrent turns, the one recorded later may have been searched earlier.
    return sorted(found, key=lambda question: (question.position, question.event.position))


async def _context_tokens(chat: ChatClient, settings: ServiceSettings) -> int:
    """Return the chat model's context length as a turn would know it."""
    limit = ContextLimit(settings)
    try:
        limit.learned = await chat.context_length()
    except UpstreamError as error:
        log.info("the chat endpoint does not list its models (%s)", error.code)
    return limit.tokens
