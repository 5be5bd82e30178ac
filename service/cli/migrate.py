"""``opm migrate``: bring a ledger of an older version up to date."""

from __future__ import annotations

from domain.settings import StorageSettings, load_settings
from service.cli.shell import AsJson, brought_up_to_date, out, print_json


def migrate(*, json: AsJson = False) -> None:
    """Bring the ledger up to date with this version, as every start of the service does.

    Views, indices and triggers change, and no event does. Older versions cannot open it afterwards: make a backup, or
    migrate a copy.
    """
    settings = load_settings(StorageSettings)
    before, after = brought_up_to_date(settings)
    if json:
        print_json({"path": str(settings.ledger_path), "before": before, "schema": after})
        return
    name = settings.ledger_path.name
    if before == after:
        out.print(f"{name} is up to date: schema {after}", markup=False)
    else:
        out.print(f"{name}: migrated from schema {before} to {after}", markup=False)
