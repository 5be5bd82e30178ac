"""``opm backup``: a copy of the ledger, made beside a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domain.settings import StorageSettings, load_settings
from projections.backup.ledger_copy import back_up
from service.cli.shell import AsJson, out, print_json


def backup(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write, outside of STORAGE_DIR.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
    json: AsJson = False,
) -> None:
    """Copy the ledger to PATH: consistent, checked, on the disk, and there only once it is complete.

    It may run beside a service. All else in STORAGE_DIR grows back from the ledger.
    """
    made = back_up(load_settings(StorageSettings), path, force=force)
    if json:
        print_json({"path": made.path, "made_at": made.made_at.isoformat(), "head": f"{made.position}:{made.hash}"})
    else:
        out.print(f"{made.path}: {made.position} events, head {made.position}:{made.hash}", markup=False)
