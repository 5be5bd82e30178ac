"""A process that keeps one user's index up to the ledger and writes it often, to be killed at any point.

``python -m tests.projections.maintainer STORAGE EMB_BASE_URL`` prints a line before each step.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from projections.dense import user_index
from projections.dense.projection import DenseProjection
from projections.settings import ProjectionSettings
from tests.projections.world import MODEL, opened


async def main() -> None:
    """Follow the ledger in small steps, while there is anything to do."""
    user_index._CHANGES_MIN = 8
    values = {"storage_dir": Path(sys.argv[1]), "emb_base_url": sys.argv[2], "emb_model": MODEL, "emb_batch": 4}
    settings = ProjectionSettings.model_validate(values)
    async with opened(settings) as world:
        follower = DenseProjection(world.ledger, world.index, world.cache)
        embedder = world.index.embedder(await world.index.space_of("ann"))
        texts, _ = world.ledger.reader.facet_texts("ann", 0, 1000)
        for start in range(0, len(texts), 64):
            print("embed", flush=True)  # noqa: T201 - the test reads how far it is
            await embedder.embed_missing([text.text for text in texts[start : start + 64] if text.text])
        while await follower.advance():
            print("advance", flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main())
