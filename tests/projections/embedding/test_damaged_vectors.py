"""Vectors that a disk changed give no wrong hits: they are found, named by the verification, and embedded again."""

from __future__ import annotations

import random
import shutil
from contextlib import closing, suppress
from pathlib import Path

from domain.errors import IndexUnavailable
from domain.settings import StorageSettings
from domain.sqlite import DRIVER
from projections.rebuild.generation import rebuild
from projections.verification.storage import verify_storage
from tests.projections.world import FACTS, many, opened, remember, settings_for
from tests.upstream import ScriptedUpstream

QUESTIONS = ("When does the ferry leave?", "Who plays chess?", "Where is violin 7?", "Where is entry 17?")


async def answers(storage: Path, upstream: ScriptedUpstream) -> list[list[tuple[int, float]]]:
    """Search with whatever is on the disk, trying again where memory is being brought back."""
    async with opened(settings_for(storage, upstream)) as world:
        found = []
        for question in QUESTIONS:
            for _ in range(5):
                with suppress(IndexUnavailable):
                    found.append(await world.found("ann", question))
                    break
                with suppress(IndexUnavailable):
                    await world.index.maintain("ann")
        return found


async def built(storage: Path, upstream: ScriptedUpstream) -> list[list[tuple[int, float]]]:
    async with opened(settings_for(storage, upstream)) as world:
        remember(world.ledger, "ann", [*FACTS, *many(60)])
        await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None)
    return await answers(storage, upstream)


async def test_flipped_bits_give_no_wrong_hits_and_are_found(storage: Path, upstream: ScriptedUpstream) -> None:
    expected = await built(storage, upstream)
    settings = StorageSettings(storage_dir=storage)
    assert [finding for finding in verify_storage(settings).findings if finding.part == "index"] == []
    chance = random.Random(3)  # noqa: S311 - repeatable damage, no secret
    with closing(DRIVER.connect(storage / "vectors.sqlite3", isolation_level=None)) as connection:
        rows = connection.execute("SELECT text_hash, vector FROM vectors ORDER BY text_hash").fetchall()
        for key, blob in chance.sample(rows, 10):
            content = bytearray(blob)
            content[2 * chance.randrange(len(content) // 2) + 1] ^= 0x40  # the highest bit of an exponent
            connection.execute("UPDATE vectors SET vector = ? WHERE text_hash = ?", (bytes(content), key))
    found = [finding for finding in verify_storage(settings).findings if finding.path == "vectors.sqlite3"]
    assert [finding.what.partition(":")[0] for finding in found] == ["10 vectors were changed"]
    async with opened(settings_for(storage, upstream)) as world:
        await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None)
    assert await answers(storage, upstream) == expected
    shutil.rmtree(storage / "users")
    assert await answers(storage, upstream) == expected


async def test_a_broken_file_costs_one_search_and_comes_back(storage: Path, upstream: ScriptedUpstream) -> None:
    expected = await built(storage, upstream)
    shutil.rmtree(storage / "users")
    path = storage / "vectors.sqlite3"
    content = path.read_bytes()
    path.write_bytes(content[:16384] + bytes(len(content) - 16384))
    assert await answers(storage, upstream) == expected
    assert (storage / "vectors.sqlite3.broken").exists()
