"""``opm audit-index``: bring the file of the auditor's questions about a whole ledger up to date."""

from __future__ import annotations

import time

from domain.settings import StorageSettings, load_settings
from projections.audit_index import AUDIT_NAME, bring_up_to_date
from service.cli.shell import AsJson, err, opened_audit, out, print_json

_SECONDS_BETWEEN = 5.0


def audit_index(*, json: AsJson = False) -> None:
    """Bring audit.sqlite3 up to date, from which docs/audit answers questions about every decision of a ledger.

    The service may be running. The file holds no texts, can be deleted at any time, and is deleted by an erasure.
    """
    settings = load_settings(StorageSettings)
    began = said = time.monotonic()

    def progress(position: int) -> None:
        nonlocal said
        if time.monotonic() - said > _SECONDS_BETWEEN:
            said = time.monotonic()
            err.print(f"read up to event {position}", markup=False)

    with opened_audit(settings) as reader:
        done = bring_up_to_date(reader, settings.ledger_path.parent, progress)
    took = round(time.monotonic() - began, 3)
    path = settings.ledger_path.with_name(AUDIT_NAME)
    if json:
        print_json(
            {
                "path": str(path),
                "position": done.position,
                "decisions": done.decisions,
                "anew": done.anew,
                "seconds": took,
            }
        )
    else:
        out.print(f"{path}: {done.decisions} decisions taken in, up to event {done.position}, {took} s", markup=False)
