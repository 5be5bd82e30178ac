"""``python -m projections.rebuild``: builds the indices of the configured embedding model and makes it the active one.

To be run after an embedding-model swap, beside a running service or without one. First every text that the vector cache
does not know for this model is embedded; then each user's index is written beside the ones of the old model; last an
event is appended that activates the new model, which a running service notices by itself. Interrupted at any point, the
next run goes on from the cache. What is appended meanwhile is added by the service when it opens the index.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tenacity import (
    AsyncRetrying,
    before_sleep_log,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)
from tqdm import tqdm

from domain.errors import EmbeddingUnavailable, InvalidInput, OpmError
from domain.events import EmbeddingModelActivated, NewEvent
from domain.identity import SYSTEM_STREAM, check_id, user_stream
from domain.ledger import Ledger
from domain.memory import FacetText
from domain.settings import load_settings
from migrations.runner import migrate
from projections.embedder import Embedder
from projections.embedding_client import EmbeddingClient
from projections.index_files import IndexFiles
from projections.index_rows import hash_of, index_rows, ready_count
from projections.settings import ProjectionSettings
from projections.user_index import UserIndex
from projections.vector_cache import VectorCache

log = logging.getLogger(__name__)

_EVENTS_PER_READ = 1024
_USERS_PER_READ = 1000
_TIMEOUT_S = 120.0
_ATTEMPTS = 8
_BACKOFF_MAX_S = 30.0

DONE, FAILED, BAD_ARGUMENTS = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did."""

    users: int
    vectors: int
    embedded: int
    position: int


async def rebuild(
    ledger: Ledger, client: EmbeddingClient, cache: VectorCache, settings: ProjectionSettings, *, user_id: str | None
) -> Rebuilt:
    """Build the index of one user or of all with the configured model, then activate that model for them.

    Raises :class:`EmbeddingError` when the endpoint stays away; what was embedded until then is kept.
    """
    probe = await client.embed([client.query_prefix + "dimension"], timeout_s=_TIMEOUT_S)
    space = client.space(probe.shape[1])
    embedder = Embedder(client, cache, space, batch=settings.emb_batch, timeout_s=_TIMEOUT_S)
    position = ledger.reader.head_position()
    embedded = await _embed_all(ledger, cache, embedder, user_id)
    users = [user_id] if user_id is not None else list(_users(ledger))
    vectors = 0
    for user in tqdm(users, desc="indices", unit="user", disable=None):
        index = await asyncio.to_thread(_build, ledger, cache, embedder, user)
        vectors += len(index)
        await asyncio.to_thread(_write, ledger, IndexFiles(settings.users_dir, user, space), index)
    payload = EmbeddingModelActivated(
        model=space.model,
        dimensions=space.dimensions,
        passage_prefix=space.passage_prefix,
        memories=ledger.reader.count_turns(user_id),
        vectors=vectors,
        ledger_position=position,
    )
    event = NewEvent(ledger.clock.new_id(), payload)
    stream = SYSTEM_STREAM if user_id is None else user_stream(user_id)
    await asyncio.wrap_future(ledger.append(stream, lambda _head: [event]))
    if user_id is None:
        # A service that notices the new model need not read what was embedded here.
        await asyncio.to_thread(cache.put, embedder.space_id, {}, position=position)
    return Rebuilt(users=len(users), vectors=vectors, embedded=embedded, position=position)


async def _embed_all(ledger: Ledger, cache: VectorCache, embedder: Embedder, user_id: str | None) -> int:
    """Embed every text that the cache does not know; return how many that were."""
    embedded = 0
    total = ledger.reader.count_facets(user_id)
    with tqdm(total=total, desc="texts", unit="text", disable=None) as progress:
        for texts in _facet_texts(ledger, user_id):
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(EmbeddingUnavailable),
                wait=wait_exponential(multiplier=0.5, max=_BACKOFF_MAX_S) + wait_random(0, 0.5),
                stop=stop_after_attempt(_ATTEMPTS),
                before_sleep=before_sleep_log(log, logging.WARNING),
                reraise=True,
            ):
                with attempt:
                    embedded += await embedder.embed_missing([text.text for text in texts if text.text is not None])
            await asyncio.to_thread(cache.checkpoint)
            progress.update(len(texts))
    return embedded


def _build(ledger: Ledger, cache: VectorCache, embedder: Embedder, user_id: str) -> UserIndex:
    index = UserIndex(embedder.space.dimensions, "fp16" if cache.half else "fp32")
    for read in _facet_texts(ledger, user_id):
        known = cache.get(embedder.space_id, [key for change in read if (key := hash_of(change)) is not None])
        # What was recorded after the last embedding call has no vector yet: the service goes on from there.
        ready = ready_count(read, known)
        rows = index_rows(read[:ready], known, embedder.space.dimensions)
        index.extend(
            index.position,
            rows.positions,
            rows.keys,
            rows.vectors,
            read[ready - 1].position if ready else index.position,
            withdrawn=rows.withdrawn,
        )
        if ready < len(read):
            break
    return index


def _write(ledger: Ledger, files: IndexFiles, index: UserIndex) -> None:
    snapshot, position = index.snapshot()
    files.load(files.save(snapshot, index.storage, position, ledger.reader.hash_at(position)))


def _facet_texts(ledger: Ledger, user_id: str | None) -> Iterator[list[FacetText]]:
    position = 0
    while True:
        after = position
        texts, position = ledger.reader.facet_texts(user_id, after, _EVENTS_PER_READ)
        if position == after:
            return
        yield texts


def _users(ledger: Ledger) -> Iterator[str]:
    last = ""
    while users := ledger.reader.users_after(last, _USERS_PER_READ):
        yield from users
        last = users[-1]


async def _run(settings: ProjectionSettings, user_id: str | None) -> Rebuilt:
    migrate(settings.ledger_path)
    ledger = Ledger(settings.ledger_path)
    try:
        if user_id is not None and not ledger.reader.count_turns(user_id):
            raise InvalidInput("--user", user_id, "name a user who has memories")
        cache = VectorCache(settings.vector_cache_path, half=settings.index_storage == "fp16")
        client = EmbeddingClient(settings)
        try:
            return await rebuild(ledger, client, cache, settings, user_id=user_id)
        finally:
            await client.close()
            cache.close()
    finally:
        ledger.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status: 0 done, 1 failed, 2 bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m projections.rebuild", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--user", metavar="U", help="rebuild this user's index only (default: everybody's)")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    out, err = sys.stdout, sys.stderr
    try:
        settings = load_settings(ProjectionSettings)
        user_id = check_id("--user", given.user) if given.user is not None else None
        done = asyncio.run(_run(settings, user_id))
    except InvalidInput as error:
        err.write(f"rebuild: {error}\n")
        return BAD_ARGUMENTS
    except OpmError as error:
        err.write(f"rebuild: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        err.write("rebuild: interrupted; what was embedded is kept, run it again to go on\n")
        return FAILED
    out.write(
        f"{settings.emb_model} is active for {done.users} user{'s' * (done.users != 1)}: {done.vectors} vectors, "
        f"{done.embedded} embedded now, the others from the cache\n"
    )
    return DONE


if __name__ == "__main__":
    sys.exit(main())
