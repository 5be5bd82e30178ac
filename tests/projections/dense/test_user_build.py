"""One user's index is built from the ledger and the cache, and leaves nothing of a user who is erased meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from projections.dense.index_files import IndexFiles, Manifest
from projections.dense.user_build import Target, build_user
from projections.erasure import erase_user
from tests.projections.world import FACTS, opened, remember, settings_for
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
