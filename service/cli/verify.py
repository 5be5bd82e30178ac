"""``opm verify``: check that the storage still holds what was written."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from domain.errors import InvalidInput
from domain.settings import StorageSettings, load_settings
from domain.verification import parse_head
from projections.verification.storage import head_of, verify_storage
from service.cli.shell import FAILED, AsJson, finding_line, out, print_json


def verify(
    *,
    head: Annotated[bool, typer.Option("--head", help="Only print POSITION:HASH of the last event.")] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="POSITION:HASH", help="A head kept earlier: the ledger must still contain it."),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also let SQLite compare every index with its rows.")] = False,
    json: AsJson = False,
) -> None:
    """Check hash chain, versions, triggers, mirror and indices; report every difference.

    Only a head kept elsewhere reveals a cut-off tail or a history rewritten from some event on: keep the output of
    --head, and pass it to --since.
    """
    settings = load_settings(StorageSettings)
    if head:
        if since is not None or deep:
            raise InvalidInput("--head", "with --since or --deep", "ask for one thing at a time")
        found = head_of(settings.ledger_path)
        if json:
            print_json({"head": str(found), "position": found.position, "hash": found.hash})
        else:
            out.print(str(found), markup=False)
        return
    verified = verify_storage(settings, parse_head(since) if since is not None else None, deep=deep)
    if json:
        print_json(
            {
                "well": not verified.findings,
                "head": str(verified.head),
                "mirror": asdict(verified.mirror),
                "findings": [asdict(finding) for finding in verified.findings],
            }
        )
    else:
        for finding in verified.findings:
            out.print(finding_line(finding), markup=False)
        mirror = verified.mirror
        out.print(f"ledger: {verified.head.position} events, head {verified.head}", markup=False)
        behind = f", {mirror.behind} events not mirrored yet" if mirror.behind else ""
        out.print(f"mirror: {mirror.lines} lines in {mirror.files} files{behind}", markup=False)
        out.print("all is well" if not verified.findings else f"{len(verified.findings)} findings, see above")
    if verified.findings:
        raise typer.Exit(FAILED)
