"""Everything a running service consists of, wired in one place."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from domain.errors import EmbeddingError, IndexUnavailable, OpmError, UpstreamError
from domain.events import PromptsActivated, SettingsActivated
from domain.identity import SYSTEM_STREAM
from domain.ledger import Ledger
from domain.private_files import private_by_default, tighten
from domain.prompts import Prompts, load_prompts
from domain.record_once import record_once
from domain.settings import new_ledger_notice
from migrations.runner import migrate, usable
from projections.backup.known_backups import remove_partials
from projections.dense.dense_index import DenseIndex
from projections.dense.projection import DenseProjection
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingClient
from projections.embedding.known_addresses import remember_address
from projections.erasure import finish_erasures
from projections.follower import Follower, safe_message
from projections.lexical.index_files import LexicalFiles
from projections.lexical.projection import LexicalProjection
from projections.mirror.mirror import Mirror
from projections.part_erasure import finish_parts
from projections.search.memory_search import MemorySearch
from service.access_log import AccessLog
from service.answers import Answers
from service.background import follow_alone, lock_file
from service.chat_client import ChatClient
from service.context_probe import ContextLength
from service.keys import KeyRing
from service.passthrough import PassThrough
from service.reranker import Reranker
from service.retention import keep_for_days
from service.settings import ServiceSettings
from service.summarizer import Summarizer
from service.turn import TurnService

log = logging.getLogger(__name__)

_LIMITS_RETRY_S = 30.0
_LAST_EVENTS_S_MAX = 5.0


@dataclass(frozen=True)
class Services:
    """The parts that the HTTP floor uses."""

    settings: ServiceSettings
    ledger: Ledger
    embeddings: EmbeddingClient
    chat: ChatClient
    reranker: Reranker | None
    passthrough: PassThrough
    index: DenseIndex
    turns: TurnService
    answers: Answers
    summarizer: Summarizer
    followers: dict[str, Follower]
    access_log: AccessLog
    keys: KeyRing
    started_at: int


@asynccontextmanager
async def open_services(settings: ServiceSettings) -> AsyncIterator[Services]:
    """Migrate the ledger, start everything, and stop it all in reverse order.

    Raises :class:`OpmError` with one clear line when the ledger cannot be opened.
    """
    private_by_default()
    prompts = load_prompts(settings.prompts_dir)
    if await asyncio.to_thread(migrate, settings.ledger_path):
        log.warning("%s", new_ledger_notice(settings))
    with usable(settings.storage_dir):
        await asyncio.to_thread(tighten, settings.storage_dir)
        lock_file(settings.storage_dir).close()
    ledger = await asyncio.to_thread(Ledger, settings.ledger_path)
    try:
        await asyncio.to_thread(remove_partials, settings.storage_dir)
    except OpmError as error:
        log.warning("what a killed backup may have left was not looked for: %s", error)
    try:
        finished = await asyncio.to_thread(finish_erasures, ledger, settings.storage_dir)
        finished += await asyncio.to_thread(finish_parts, ledger, settings.storage_dir)
        if finished:
            log.warning("finished %d interrupted erasures", finished)
    except OpmError as error:
        log.warning("an interrupted erasure could not be finished: %s", error)
    await asyncio.to_thread(remember_address, settings)
    cache = await asyncio.to_thread(VectorCache, settings.vector_cache_path, half=settings.index_storage == "fp16")
    embeddings, chat = EmbeddingClient(settings), ChatClient(settings)
    index = DenseIndex(ledger, embeddings, cache, settings)
    reranker = Reranker(settings) if settings.rerank_strategy == "endpoint" else None
    passthrough = PassThrough(settings)
    lexical = LexicalFiles(ledger.reader, settings.users_dir)
    memory = MemorySearch(ledger.reader, index, lexical)
    turns = TurnService(ledger, memory, chat, prompts, settings, reranker)
    summarizer = Summarizer(ledger, chat, prompts.summary, settings, lambda: turns.context.tokens)
    mirror = Mirror(ledger.reader, settings.storage_dir)
    followers = {
        "mirror": Follower(ledger, mirror),
        "vectors": Follower(ledger, DenseProjection(ledger, index, cache)),
        "words": Follower(ledger, LexicalProjection(ledger, lexical)),
        "summaries": Follower(ledger, summarizer),
    }
    tasks: list[asyncio.Task[None]] = []
    try:
        await _activate_prompts(ledger, prompts)
        await _activate_settings(ledger, settings)
        tasks = [asyncio.create_task(follow_alone(settings.storage_dir, followers), name="background")]
        tasks.append(asyncio.create_task(_learn_limits(turns, chat), name="limits"))
        tasks.append(asyncio.create_task(_try_embeddings(index), name="embeddings"))
        access_log = AccessLog(ledger, settings.access_log, settings.access_log_days)
        tasks.append(asyncio.create_task(access_log.write_forever(), name="access log"))
        # In a thread: the label of each of API_KEYS takes a while.
        keys = await asyncio.to_thread(KeyRing, ledger, settings)
        tasks.append(asyncio.create_task(keys.follow(), name="keys"))
        if settings.retention_days:
            tasks.append(asyncio.create_task(keep_for_days(ledger, settings), name="retention"))
        yield Services(
            settings=settings,
            ledger=ledger,
            embeddings=embeddings,
            chat=chat,
            reranker=reranker,
            passthrough=passthrough,
            index=index,
            turns=turns,
            answers=Answers(ledger, turns),
            summarizer=summarizer,
            followers=followers,
            access_log=access_log,
            keys=keys,
            started_at=int(time.time()),
        )
        await access_log.write()
        await keys.note()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await summarizer.close()
        await _mirror_the_last(ledger, mirror)
        await memory.close()
        await index.close()
        await turns.tokens.close()
        if reranker is not None:
            await reranker.close()
        await passthrough.close()
        await chat.close()
        await embeddings.close()
        await asyncio.to_thread(lexical.close)
        await asyncio.to_thread(ledger.close)
        await asyncio.to_thread(cache.close)


async def _mirror_the_last(ledger: Ledger, mirror: Mirror) -> None:
    """Mirror what was recorded as the service ended, so that a storage at rest is whole."""
    try:
        # An append that was cancelled may have been committed all the same: let the writer come to this first.
        await asyncio.wrap_future(ledger.write(lambda _connection: None, transaction=False))
        await mirror.finish(_LAST_EVENTS_S_MAX)
    except (OpmError, OSError) as error:
        log.warning("the mirror lacks the last events, which the next start adds: %s", safe_message(error))


async def _activate_prompts(ledger: Ledger, prompts: Prompts) -> None:
    """Record the prompts' texts when they are not the ones recorded last, so that their versions can be read."""
    named = prompts.by_name()
    payload = PromptsActivated(
        versions={name: prompt.version for name, prompt in named.items()},
        texts={name: prompt.text for name, prompt in named.items()},
    )

    def missing() -> PromptsActivated | None:
        return None if ledger.reader.active_prompts() == payload else payload

    await asyncio.to_thread(record_once, ledger, SYSTEM_STREAM, missing)


async def _activate_settings(ledger: Ledger, settings: ServiceSettings) -> None:
    """Record the settings that decide when they are not those recorded last."""
    payload = SettingsActivated(settings=settings.deciding())

    def missing() -> SettingsActivated | None:
        return None if ledger.reader.active_settings() == payload else payload

    await asyncio.to_thread(record_once, ledger, SYSTEM_STREAM, missing)


async def _learn_limits(turns: TurnService, chat: ChatClient) -> None:
    """Ask the chat endpoint how much its model takes: at the start, and once more when it has given an answer.

    Some servers load a model for its first request, and only then know with how long a context.
    """
    turns.context.learned = await _context_length(chat)
    if not turns.context.known:
        log.info(
            "the chat endpoint does not say how many tokens its model takes: %d are assumed, until LLM_CONTEXT_TOKENS "
            "says more",
            turns.context.tokens,
        )
    await chat.answered.wait()
    before = turns.context.tokens
    turns.context.learned = await _context_length(chat) or turns.context.learned
    if turns.context.tokens != before:
        log.info("the chat model is loaded and takes %d tokens, not %d", turns.context.tokens, before)


async def _context_length(chat: ChatClient) -> ContextLength | None:
    """Return what the chat endpoint says of its model, as soon as it says anything at all."""
    while True:
        try:
            return await chat.context_length()
        except UpstreamError as error:
            log.info("the chat endpoint does not list its models yet (%s)", error.code)
            await asyncio.sleep(_LIMITS_RETRY_S)


async def _try_embeddings(index: DenseIndex) -> None:
    """Embed a word at the start, so that trouble is logged before a turn meets it and the first turn is fast."""
    try:
        await index.check_endpoint()
    except IndexUnavailable:
        return  # the dense projection logs it
    except EmbeddingError as error:
        log.warning("only lexical search works for now: %s", error)
