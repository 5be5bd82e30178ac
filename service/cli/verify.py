"""``opm verify``: check that the storage, or one copy of a ledger, still holds what was written."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from domain.audit_reader import AuditReader
from domain.errors import InvalidInput, LedgerReadFailed, LedgerSchemaError
from domain.settings import StorageSettings, load_settings
from domain.sqlite import open_engine
from domain.verification import Finding, LedgerHead, parse_head
from projections.mirror.mirror import mirror_files
from projections.verification.mirror import MirrorState
from projections.verification.storage import head_of, verify_ledger_file, verify_storage
from service.cli.shell import FAILED, AsJson, finding_line, out, print_json


def verify(
    path: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A backup or another ledger file (default: STORAGE_DIR).")
    ] = None,
    *,
    head: Annotated[bool, typer.Option("--head", help="Only print POSITION:HASH of the last event.")] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="POSITION:HASH", help="A head kept earlier: the ledger must still contain it."),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also let SQLite compare every index with its rows.")] = False,
    json: AsJson = False,
) -> None:
    """Check hash chain, versions, triggers, mirror and indices; report every difference. The service may be running.

    With FILE, check that ledger alone. Only a head kept elsewhere reveals a cut-off tail or a history rewritten from
    some event on: keep the output of --head, and pass it to --since.
    """
    if path is not None and not path.is_file():
        raise InvalidInput("FILE", str(path), "there is no such file: name a backup, or leave it out for STORAGE_DIR")
    if head and (since is not None or deep):
        raise InvalidInput("--head", "with --since or --deep", "ask for one thing at a time")
    wanted = parse_head(since) if since is not None else None
    settings = load_settings(StorageSettings)
    try:
        if head:
            _print_head(head_of(path or settings.ledger_path), json)
            return
        if path is not None:
            reached, findings = verify_ledger_file(path, wanted, deep=deep)
            _print(reached, findings, _blanked_in(path), None, None, json)
        else:
            verified = verify_storage(settings, wanted, deep=deep)
            reached, findings = verified.head, list(verified.findings)
            _print(reached, findings, _blanked_in(settings.ledger_path), verified.mirror, verified.advice, json)
    except LedgerSchemaError as error:
        if path is not None or next(mirror_files(settings.storage_dir), None) is None:
            raise
        raise LedgerSchemaError(
            f"{error}. If it was damaged: copy STORAGE_DIR, then run `opm restore --from-mirror`, which makes a ledger "
            "of the JSONL files and checks them first"
        ) from None
    if findings:
        raise typer.Exit(FAILED)


def _print_head(head: LedgerHead, as_json: bool) -> None:
    if as_json:
        print_json({"head": str(head), "position": head.position, "hash": head.hash})
    else:
        out.print(str(head), markup=False)


def _blanked_in(path: Path) -> int | None:
    """Count the events that erasures have blanked; None where the file cannot be read."""
    engine = open_engine(path, writer=False)
    try:
        return AuditReader(engine).count_blanked()
    except LedgerReadFailed:
        return None
    finally:
        engine.dispose()


def _print(
    head: LedgerHead,
    findings: list[Finding],
    blanked: int | None,
    mirror: MirrorState | None,
    advice: str | None,
    as_json: bool,
) -> None:
    if as_json:
        found: dict[str, object] = {"well": not findings, "head": str(head), "blanked": blanked}
        if mirror is not None:
            found["mirror"] = asdict(mirror)
        print_json({**found, "findings": [asdict(finding) for finding in findings], "advice": advice})
        return
    for finding in findings:
        out.print(finding_line(finding), markup=False)
    of_them = f", {blanked} of them blanked by erasures" if blanked else ""
    out.print(f"ledger: {head.position} events{of_them}, head {head}", markup=False)
    if mirror is not None:
        behind = f", {mirror.behind} events not mirrored yet" if mirror.behind else ""
        upto = min(mirror.position, head.position)
        out.print(f"mirror: {mirror.lines} lines in {mirror.files} files, up to event {upto}{behind}", markup=False)
    out.print("all is well" if not findings else f"{len(findings)} findings, see above")
    if advice is not None:
        out.print(f"what to do: {advice}", markup=False)
