"""``opm restore``: replace the ledger with a backup, or with one made from the mirror."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from domain.errors import InvalidInput, LedgerReadFailed
from domain.settings import StorageSettings, load_settings
from domain.verification import parse_head
from projections.backup.restore import mirror_restored, restore_backup, restore_from_mirror
from projections.mirror.ledger_from_mirror import MirrorIncomplete
from service.cli.shell import FAILED, AsJson, complain, err, finding_line, out, print_json


def restore(
    path: Annotated[Path | None, typer.Argument(metavar="PATH", help="A backup that `opm backup` made.")] = None,
    *,
    from_mirror: Annotated[
        bool, typer.Option("--from-mirror", help="Rebuild the ledger from the JSONL files instead.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="POSITION:HASH", help="With --from-mirror: a head it must contain."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Replace the ledger with that of a backup or of the mirror. Stop the service first.

    The previous ledger and its projections are kept in STORAGE_DIR in a folder before-restore-TIME. The JSONL files
    are rewritten; the indices are rebuilt at the next start.
    """
    if (path is None) != from_mirror:
        raise InvalidInput("PATH", str(path) if path else "(none)", "give either a backup or --from-mirror")
    if since is not None and not from_mirror:
        raise InvalidInput("--since", since, "goes with --from-mirror only; check a backup's head with its own record")
    settings = load_settings(StorageSettings)
    try:
        if path is not None:
            restored = restore_backup(settings, path)
        else:
            restored = restore_from_mirror(settings, parse_head(since) if since is not None else None)
    except MirrorIncomplete as error:
        if json:
            print_json({"restored": False, "findings": [asdict(finding) for finding in error.findings]})
        else:
            for finding in error.findings:
                out.print(finding_line(finding), markup=False)
        complain(str(error))
        raise typer.Exit(FAILED) from None
    try:
        mirror_restored(settings)
    except (OSError, LedgerReadFailed) as error:
        why = error.strerror if isinstance(error, OSError) else error
        complain(f"the JSONL files cannot be written ({why}): the next start completes them")
    aside = str(restored.put_aside) if restored.put_aside is not None else None
    if json:
        told = {"restored": True, "head": str(restored.head), "put_aside": aside}
        print_json({**told, "erasures_undone": restored.erasures_undone, "keys_kept": restored.keys_kept})
        return
    out.print(f"restored: {restored.head.position} events, head {restored.head}", markup=False)
    if aside is not None:
        out.print(f"what was there before: {aside}", markup=False)
    else:
        err.print(f"there was no ledger before at {settings.ledger_path.absolute()}", markup=False)
    if restored.erasures_undone:
        out.print(
            f"erasures undone: {restored.erasures_undone}. Who or what was erased after this copy was made is in it "
            "again: erase it once more",
            markup=False,
        )
    if not restored.keys_kept:
        out.print(
            "the keys of the previous ledger cannot be read, so those of this copy count, also ones that were revoked "
            "since: see `opm keys list`. Without any key the service asks for none"
        )
