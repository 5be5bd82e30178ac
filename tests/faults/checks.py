"""What must hold of a ``STORAGE_DIR`` after a fault: nothing acknowledged is lost, and the ledger verifies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2

from domain.errors import OpmError
from domain.ledger import Ledger
from migrations.runner import migrate
from tests.faults.load import Acknowledged
from tests.processes import service_process
from tests.service.opm import environment, opm
from tests.service.running import until

_OF_THE_LEDGER = ("ledger", "schema", "file")


def wrong_with_ledger(storage_dir: Path, acknowledged: Sequence[Acknowledged]) -> list[str]:
    """Open the ledger as a service does, and verify it; return what is wrong, one line each."""
    path = storage_dir / "ledger.sqlite3"
    try:
        migrate(path)
        ledger = Ledger(path)
    except OpmError as error:
        return [f"the ledger does not open: {error}"]
    try:
        owners = ledger.persons.owners_of_events([turn.memory_id for turn in acknowledged])
    finally:
        ledger.close()
    lost = [f"turn {turn.memory_id} is lost" for turn in acknowledged if owners.get(turn.memory_id) != turn.user]
    findings = verified(storage_dir)["findings"]
    return lost + [str(finding) for finding in findings if finding["part"] in _OF_THE_LEDGER]


def wrong_after_restart(storage_dir: Path, env: Mapping[str, str], acknowledged: Sequence[Acknowledged]) -> list[str]:
    """Start a service on the storage, let it catch up, and verify everything; return what is wrong."""
    with service_process({**env, "STORAGE_DIR": str(storage_dir)}) as service:
        if acknowledged:
            asked = {"messages": [{"role": "user", "content": "What is my number?"}], "user": acknowledged[0].user}
            answer = httpx2.post(f"{service.base_url}/v1/chat/completions", json=asked, timeout=30, trust_env=False)
            if answer.status_code != 200:
                return [f"a turn after the restart: status {answer.status_code}"]
        until("the mirror is at the head", lambda: not verified(storage_dir)["mirror"]["behind"])
        service.terminate()
    return [str(finding) for finding in verified(storage_dir)["findings"]]


def verified(storage_dir: Path) -> Any:
    """Return what ``opm verify`` says; a ledger that it cannot open is a finding too."""
    said = opm(environment(storage_dir), "verify", "--json").json
    return said if "findings" in said else {"findings": [said["error"]], "mirror": {"behind": 0}}
