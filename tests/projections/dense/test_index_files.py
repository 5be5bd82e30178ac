"""A file that is not what it should be is noticed, said in one line, and built again from the ledger."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from projections.dense.index_files import IndexFiles
from projections.rebuild.generation import rebuild
from tests.ledgers import new_ledger_file
from tests.projections.world import FACTS, World, many, opened, remember, settings_for
from tests.upstream import ScriptedUpstream

QUESTION = "When does the ferry leave?"


def folder_of(world: World, user_id: str) -> Path:
    return IndexFiles(world.settings.users_dir, user_id, world.client.space(64)).folder


def flip_a_bit(folder: Path) -> None:
    (path,) = folder.glob("*.faiss")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    (path,) = folder.glob("*.faiss")
    path.write_bytes(path.read_bytes()[:-1])


def empty(folder: Path) -> None:
    (path,) = folder.glob("*.faiss")
    path.write_bytes(b"")


def lose(folder: Path) -> None:
    (path,) = folder.glob("*.faiss")
    path.unlink()


def manifest_garbage(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff\xfe not json")


def manifest_torn(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])


def manifest_with(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def newer_format(folder: Path) -> None:
    manifest_with(folder, format=2)


def newer_fields(folder: Path) -> None:
    manifest_with(folder, format=2, compression="zstd")


def fewer_vectors(folder: Path) -> None:
    manifest_with(folder, vectors=3)


def another_space(folder: Path) -> None:
    manifest_with(folder, model="emb-new")


def another_anchor(folder: Path) -> None:
    manifest_with(folder, anchor="sha256:" + "0" * 64)


def another_position(folder: Path) -> None:
    manifest_with(folder, position=10_000)


def an_absurd_position(folder: Path) -> None:
    manifest_with(folder, position=10**30)


def a_file_elsewhere(folder: Path) -> None:
    (path,) = folder.glob("*.faiss")
    shutil.copy(path, folder.parent / path.name)
    manifest_with(folder, file=f"../{path.name}")


def a_folder_for_the_snapshot(folder: Path) -> None:
    (path,) = folder.glob("*.faiss")
    path.unlink()
    (path / "inside").mkdir(parents=True)


def a_folder_for_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json" / "inside").mkdir(parents=True)


def other_users(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(Path(str(folder).replace("/ann/", "/bob/")), folder)


DAMAGES: list[Callable[[Path], None]] = [
    flip_a_bit,
    truncate,
    empty,
    lose,
    manifest_garbage,
    manifest_torn,
    newer_format,
    newer_fields,
    fewer_vectors,
    another_space,
    another_anchor,
    another_position,
    an_absurd_position,
    a_file_elsewhere,
    a_folder_for_the_snapshot,
    a_folder_for_the_manifest,
    other_users,
]


async def built(world: World) -> list[tuple[int, float]]:
    remember(world.ledger, "ann", FACTS)
    remember(world.ledger, "bob", many(12))
    await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None)
    return await world.found("ann", QUESTION)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage(
    storage: Path, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    settings = settings_for(storage, upstream)
    async with opened(settings) as world:
        expected = await built(world)
        folder = folder_of(world, "ann")
    damage(folder)
    async with opened(settings) as world:
        assert await world.found("ann", QUESTION) == expected
    (line,) = complaints(caplog)
    assert "an index is built again from the ledger" in line
    assert "\n" not in line


@pytest.mark.parametrize("damage", [a_folder_for_the_snapshot, a_folder_for_the_manifest])
async def test_a_folder_in_the_place_of_a_file_is_made_way(
    storage: Path, upstream: ScriptedUpstream, damage: Callable[[Path], None]
) -> None:
    settings = settings_for(storage, upstream)
    async with opened(settings) as world:
        expected = await built(world)
        damage(folder_of(world, "ann"))
        await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None)
    async with opened(settings) as world:
        assert await world.found("ann", QUESTION) == expected
        assert IndexFiles(world.settings.users_dir, "ann", world.client.space(64)).manifest() is not None


async def test_a_whole_file_is_used_as_it_is(
    storage: Path, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(storage, upstream)
    async with opened(settings) as world:
        expected = await built(world)
    settings.vector_cache_path.unlink()  # so that nothing but the file can have answered
    async with opened(settings) as world:
        upstream.forget_calls()
        assert await world.found("ann", QUESTION) == expected
        assert [len(call.body["input"]) for call in upstream.calls_of("embed")] == [1]
    assert complaints(caplog) == []


async def test_the_files_of_another_ledger(
    storage: Path, tmp_path: Path, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    new_ledger_file(other)
    async with opened(settings_for(other, upstream)) as world:
        remember(world.ledger, "ann", many(20))
        await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None)
        foreign = folder_of(world, "ann")
    async with opened(settings_for(storage, upstream)) as world:
        expected = await built(world)
        own = folder_of(world, "ann")
    shutil.rmtree(own)
    shutil.copytree(foreign, own)
    async with opened(settings_for(storage, upstream)) as world:
        assert await world.found("ann", QUESTION) == expected
    assert len(complaints(caplog)) == 1


async def test_a_ledger_that_was_cut(
    storage: Path, tmp_path: Path, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """A restored backup of the ledger is older than the files beside it, and may go on differently."""
    settings = settings_for(storage, upstream)
    async with opened(settings) as world:
        remember(world.ledger, "ann", FACTS[:4])
        await rebuild(world.ledger, world.client, world.cache, settings, user_id=None)
        expected = await world.found("ann", QUESTION)
    backup = settings.ledger_path.read_bytes()
    async with opened(settings) as world:
        remember(world.ledger, "ann", FACTS[4:])
        await rebuild(world.ledger, world.client, world.cache, settings, user_id=None)
    settings.ledger_path.write_bytes(backup)
    async with opened(settings) as world:
        assert await world.found("ann", QUESTION) == expected
        remember(world.ledger, "ann", ["The night ferry leaves at ten."] * 4)
        assert (await world.found("ann", "night ferry", 1))[0][0] > expected[0][0]
    assert len(complaints(caplog)) == 1
