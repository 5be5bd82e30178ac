"""One user's index is built from the ledger and the cache, and leaves nothing of a user who is erased meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domain.identity import StreamId
from projections.erasure import erase_user
from projections.generations.user_build import Rows, Target, build_user
from projections.vectors.files import IndexFiles, Manifest
from tests.ledgers import record, summary_of
from tests.projections.world import FACTS, change, opened, remember, settings_for
from tests.upstream import ScriptedUpstream


async def test_an_erasure_while_the_file_is_written_leaves_no_folder(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        remember(world.ledger, "ann", FACTS)
        await world.index.maintain("ann")
        space = await world.index.space_of("ann")
        target = Target(world.settings.users_dir, space, "fp16")
        head = world.ledger.reader.head_position()
        assert build_user(world.ledger.reader, world.cache, target, "ann", head) == 2 * len(FACTS)
        save = IndexFiles.save

        def erased_first(files: IndexFiles, *arguments: Any) -> Manifest:
            erase_user(world.ledger, storage, "ann")
            return save(files, *arguments)

        monkeypatch.setattr(IndexFiles, "save", erased_first)
        assert build_user(world.ledger.reader, world.cache, target, "ann", head) == 0
        assert not (world.settings.users_dir / "ann").exists()


@pytest.mark.parametrize("page", [1, 3, 512])
async def test_what_was_read_to_be_embedded_gives_the_same_bytes(
    page: int, storage: Path, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """Edits and forgotten memories included, whichever of them a page of the reading still had before it."""
    async with opened(settings_for(storage, upstream)) as world:
        positions = remember(world.ledger, "ann", FACTS)
        change(world.ledger, positions[0], "The ferry leaves at ten.")
        change(world.ledger, positions[1], "She plays the viola.")
        change(world.ledger, positions[1], None)
        change(world.ledger, positions[2], None)
        remember(world.ledger, "bob", FACTS[:2])
        # A model's summary that comes in after a person's has nothing to say: the last event read, and no change.
        edited = world.ledger.reader.events_after(positions[0] - 1, 1)[0].event_id
        record(world.ledger, StreamId("ann", "chat"), summary_of(edited), causation_id=edited)
        await world.index.maintain("ann")
        space = await world.index.space_of("ann")
        head = world.ledger.reader.head_position()
        read, after = Rows(), 0
        while True:
            changes, position = world.ledger.reader.facet_texts(None, after, page)
            if position == after:
                break
            after = position
            for said in changes:
                if said.user_id == "ann":
                    read.take(said)
        made = []
        for name, known in (("anew", None), ("kept", read)):
            target = Target(tmp_path / name, space, "fp16")
            assert build_user(world.ledger.reader, world.cache, target, "ann", head, known) == 2 * len(FACTS) - 4
            files = [path for path in sorted(target.users_dir.rglob("*")) if path.is_file()]
            made.append([(path.relative_to(target.users_dir), path.read_bytes()) for path in files])
        assert made[0]
        assert made[0] == made[1]


async def test_what_was_read_before_somebody_spoke_again_is_not_trusted(
    storage: Path, upstream: ScriptedUpstream
) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        remember(world.ledger, "ann", FACTS[:2])
        head = world.ledger.reader.head_position()
        remember(world.ledger, "ann", FACTS[2:])
        await world.index.maintain("ann")
        target = Target(world.settings.users_dir, await world.index.space_of("ann"), "fp16")
        assert build_user(world.ledger.reader, world.cache, target, "ann", head, Rows()) == 4
