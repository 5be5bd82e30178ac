"""Makes a golden ledger of the code it runs with, by real turns over the scripted upstream.

    python -m tests.golden.make FOLDER

Writes ``ledger-REVISION.sqlite3`` and ``ledger-REVISION.json`` (what a search found, and how many events of each type
there are) into FOLDER. To be run once for each released schema, with the code that had it; the result is never made
again, since that it was written by *that* code is all its worth.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

from domain.events import MemoryEdited, MemoryForgotten
from domain.identity import StreamId
from domain.ledger import Ledger
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingClient
from projections.erasure import erase_user
from projections.rebuild.generation import rebuild
from projections.settings import ProjectionSettings
from service.importing.exchanges import Conversation, Exchange
from service.importing.record import record_conversation
from tests.ledgers import record, summary_of
from tests.projections.world import opened, settings_for
from tests.service.running import running
from tests.upstream import Fault, ScriptedUpstream
from tests.upstream.dialect import RERANK_MODEL

MODELS = ("emb-old", "emb-new")
TOLD = (
    ("ann", "kitchen", "My cat Miso only eats tuna."),
    ("ann", "kitchen", "The kitchen light needs a new bulb."),
    ("ann", "旅行", "我姐姐住在维也纳，她会拉小提琴。"),
    ("ann", "旅行", "去里斯本的渡轮九点出发。"),
    ("用户/一", "default", "我的狗叫布鲁诺，今年七岁。"),
    ("用户/一", "default", "Chess club meets on Thursday evening."),
)
ASKED = (
    ("ann", "new", "What does my cat Miso eat?"),
    ("ann", "new", "去里斯本的渡轮几点出发？"),
    ("用户/一", "新的", "我的狗叫什么名字？"),
)
EXPECTED_COUNT = 3


def converse(upstream: ScriptedUpstream, storage: Path) -> None:
    """Tell, ask, and let each call fail once in the way it degrades."""
    with running(upstream, storage, emb_model=MODELS[0], summary_attempts=1) as service:
        for user, conversation, text in TOLD:
            service.client.tell(text, user, conversation)
            service.settle()
        for number, (user, conversation, text) in enumerate(ASKED):
            service.client.tell(text, user, conversation, stream=bool(number % 2))
            service.settle()
        upstream.fail("gate", Fault(content="I would keep them all."))
        upstream.fail("rerank", Fault(status=503))
        service.client.tell("And what does my cat Miso drink?", "ann", "new")
        upstream.fail("embed", Fault(status=503), Fault(status=503))
        service.client.tell("What about the tuna for Miso?", "ann", "new", retrieve_k=2, use_rerank=False)
        service.settle()
        upstream.heal()
        upstream.fail("summary", Fault(status=500), Fault(status=500))
        service.client.tell("The blue paint is called cobalt.", "ann", "kitchen", use_gate=False)
        service.settle()
        upstream.heal()
        upstream.fail_always("answer", Fault(status=500))
        assert service.client.ask("Is anybody there?", "ann", "kitchen").status >= 500
        upstream.heal()
        service.settle()


async def swap_model(settings: ProjectionSettings) -> None:
    """Rebuild with the other embedding model, for one user alone and then for all."""
    ledger = Ledger(settings.ledger_path)
    cache = VectorCache(settings.vector_cache_path, half=True)
    client = EmbeddingClient(settings)
    try:
        for user_id in ("ann", None):
            await rebuild(ledger, client, cache, settings, user_id=user_id)
    finally:
        await client.close()
        cache.close()
        ledger.close()


def mend_import_and_erase(storage: Path) -> None:
    """Correct and withdraw a memory, take over a conversation from elsewhere, and erase a user."""
    with closing(sqlite3.connect(storage / "ledger.sqlite3")) as connection:
        query = "SELECT event_id FROM events WHERE type = 'TurnRecorded' AND user_id = 'ann' ORDER BY position"
        first, second, *_ = [row[0] for row in connection.execute(query)]
    ledger = Ledger(storage / "ledger.sqlite3")
    try:
        kitchen = StreamId("ann", "kitchen")
        edited = MemoryEdited(memory_id=first, turn_id=1, summary="Miso the cat eats tuna and salmon.")
        record(ledger, kitchen, edited, causation_id=first)
        record(ledger, kitchen, summary_of(first, 1, "Too late to count."), causation_id=first)
        record(ledger, kitchen, MemoryForgotten(memory_id=second, turn_id=2), causation_id=second)
        elsewhere = Conversation("elsewhere", [Exchange("Where is the spare key?", "Under the third flowerpot.")])
        record_conversation(ledger, "ann", elsewhere, "openai")
        erase_user(ledger, storage, "bob")
    finally:
        ledger.close()


async def found(settings: ProjectionSettings) -> dict[str, list[int]]:
    """Search as the newest code does; return the positions of what was found, by question."""
    async with opened(settings) as world:
        return {text: [hit[0] for hit in await world.found(user, text, EXPECTED_COUNT)] for user, _, text in ASKED}


def main() -> None:
    target = Path(sys.argv[1])
    with (
        tempfile.TemporaryDirectory() as folder,
        ScriptedUpstream(embedding_models=MODELS) as upstream,
    ):
        storage = Path(folder)
        converse(upstream, storage)
        settings = settings_for(storage, upstream, emb_model=MODELS[1])
        asyncio.run(swap_model(settings))
        endpoint = {"rerank_base_url": upstream.base_url, "rerank_model": RERANK_MODEL}
        with running(upstream, storage, emb_model=MODELS[1], **endpoint) as service:
            service.client.tell("My new bicycle is green.", "ann", "garage")
            service.client.tell("What does Miso the cat eat on Sunday?", "ann", "garage", retrieve_k=1)
            service.client.tell("My name is Bob and I live in Hull.", "bob", "secret")
            service.settle()
        mend_import_and_erase(storage)
        searched = asyncio.run(found(settings))
        with closing(sqlite3.connect(storage / "ledger.sqlite3", isolation_level=None)) as connection:
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            connection.execute("VACUUM INTO ?", (str(target / f"ledger-{revision}.sqlite3"),))
            types = Counter(row[0] for row in connection.execute("SELECT type FROM events ORDER BY type"))
            position, digest = connection.execute("SELECT position, hash FROM events ORDER BY position DESC").fetchone()
        expected = {"head": f"{position}:{digest}", "types": types, "found": searched}
        text = json.dumps(expected, ensure_ascii=False, indent=2)
        (target / f"ledger-{revision}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
