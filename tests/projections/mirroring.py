"""A process that mirrors a ledger as fast as it can, again and again from nothing, until it is killed.

    python -m tests.projections.mirroring STORAGE_DIR

Prints one line before the first write, so that the test knows when to kill it.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from projections.mirror.mirror import Mirror
from tests.ledgers import opened


async def mirror_for_ever(storage_dir: Path) -> None:
    with opened(storage_dir / "ledger.sqlite3") as ledger:
        sys.stdout.write("at work\n")
        sys.stdout.flush()
        while True:
            mirror = Mirror(ledger.reader, storage_dir)
            while await mirror.advance():
                pass
            shutil.rmtree(storage_dir / "users")


if __name__ == "__main__":
    asyncio.run(mirror_for_ever(Path(sys.argv[1])))
