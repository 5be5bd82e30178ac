"""``opm erase``: remove a person from everything in ``STORAGE_DIR``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from domain.errors import InvalidInput
from domain.settings import StorageSettings, load_settings
from migrations.runner import migrate
from projections.backup.known_backups import known_backups, remove_partials
from projections.erasure import ErasedUser, Extent, erase_user, extent_of
from service.cli.shell import AsJson, User, err, opened_ledger, out, print_json, user_named


def erase(
    user: User,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be removed, but change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a user: texts and ids in the ledger, files, vectors. This cannot be undone.

    The service may be running. If interrupted, the same command or the next start of the service continues.
    """
    settings = load_settings(StorageSettings)
    with opened_ledger(settings) as ledger:
        user_id = user_named(ledger.persons, user)
        if dry_run:
            _say_extent(extent_of(ledger, settings.storage_dir, user_id), settings.storage_dir, as_json)
            return
        if not yes:
            _confirm(user_id)
        migrate(settings.ledger_path)  # the triggers of an older ledger refuse to blank events
        remove_partials(settings.storage_dir)
        done = erase_user(ledger, settings.storage_dir, user_id)
    _say_done(done, settings.storage_dir, as_json)


def _confirm(user_id: str) -> None:
    err.print("This removes everything the user ever said, and cannot be undone.", markup=False)
    typed = typer.prompt("Type the user id to continue", err=True)
    if typed != user_id:
        raise InvalidInput("--user", typed, "the typed id is another one: nothing was erased")


def _say_extent(extent: Extent, storage_dir: Path, as_json: bool) -> None:
    if as_json:
        print_json({**extent.model_dump(), **_backups(storage_dir)})
        return
    out.print(f"{extent.events} events in {extent.conversations} conversations and {extent.files} files would go")
    _say_backups(storage_dir)


def _say_done(done: ErasedUser, storage_dir: Path, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(done), **_backups(storage_dir)})
        return
    out.print(
        f"erased: {done.events} events blanked, {done.files} files and {done.vectors} vectors removed, "
        f"the ledger in {storage_dir} written anew",
        markup=False,
    )
    out.print(f"in the ledger the user is {done.pseudonym} from now on", markup=False)
    if done.recorded_since:
        out.print(
            f"{done.recorded_since} events were recorded for this user meanwhile: somebody still chats. "
            "Run the same command again once that has ended",
            markup=False,
        )
    _say_backups(storage_dir)


def _backups(storage_dir: Path) -> dict[str, list[str]]:
    """Return the paths of all known copies, and of those that are not there now."""
    paths = [backup.path for backup in known_backups(storage_dir)]
    return {"backups": paths, "backups_missing": [path for path in paths if not Path(path).exists()]}


def _say_backups(storage_dir: Path) -> None:
    found = _backups(storage_dir)
    for path in found["backups"]:
        if path in found["backups_missing"]:
            out.print(f"a backup was at {path}: if it lies elsewhere now, it still holds the user", markup=False)
        else:
            out.print(f"still holds the user: {path} (a backup made earlier)", markup=False)
    if not found["backups"]:
        out.print("no backup is known here; copies made by other means still hold the user", markup=False)
