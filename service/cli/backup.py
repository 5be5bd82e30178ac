"""``opm backup``: copy the ledger, also while the service runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domain.settings import StorageSettings, load_settings
from projections.backup.ledger_copy import back_up
from service.cli.shell import AsJson, out, print_json


def backup(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write, outside STORAGE_DIR.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json: AsJson = False,
) -> None:
    """Copy the ledger to PATH: consistent, checked, synced to the disk and renamed into place once complete.

    The service may be running. Everything else in STORAGE_DIR can be rebuilt from the ledger.
    """
    made = back_up(load_settings(StorageSettings), path, force=force)
    if json:
        print_json({"path": made.path, "made_at": made.made_at.isoformat(), "head": f"{made.position}:{made.hash}"})
    else:
        out.print(f"{made.path}: {made.position} events, head {made.position}:{made.hash}", markup=False)
