"""Drive every client, or one, against the service; or record what it sends.

python -m tests.clients                      # all; the table goes to standard output
python -m tests.clients --only langchain     # one
python -m tests.clients --record             # without the service: renew tests/clients/recorded/
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.clients.catalogue import CLIENTS
from tests.clients.client import Client, Row
from tests.clients.live import drive
from tests.clients.model import ModelWithTools
from tests.clients.recording import RecordingProxy, recorded
from tests.processes import ROOT


def main() -> int:
    """Return 0 if every step of every client went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=(__doc__ or "").partition("\n")[0])
    names = [client.name for client in CLIENTS]
    parser.add_argument("--only", action="append", choices=names, help="this client; can be given more than once")
    parser.add_argument("--record", action="store_true", help="record requests, without the service between")
    parser.add_argument(
        "--environments", type=Path, default=ROOT / "build" / "clients", help="where the clients are installed"
    )
    arguments = parser.parse_args()
    environments: Path = arguments.environments.resolve()
    environments.mkdir(parents=True, exist_ok=True)
    failed = False
    for client in CLIENTS:
        if arguments.only is not None and client.name not in arguments.only:
            continue
        client.environment.make(environments)
        version = client.environment.version(environments)
        for row in record(client, environments) if arguments.record else drive(client, environments):
            sys.stdout.write(f"{row.client:16} {version:10} {row.tried:44} {row.failed or 'OK'}\n")
            sys.stdout.flush()
            failed = failed or bool(row.failed)
    return int(failed)


def record(client: Client, environments: Path) -> list[Row]:
    """Renew the recording of a client, against the model itself."""
    with ModelWithTools(says=client.says) as model, RecordingProxy(model.root_url) as proxy:
        rows = list(client.run(environments, proxy, model))
    day = datetime.now(UTC).date().isoformat()
    replaced = {str(environments): "ENVIRONMENTS", str(ROOT): "ROOT"}
    kept = [exchange for exchange in proxy.exchanges if not exchange.step.startswith(client.left_out)]
    recorded(client.name, client.environment.version(environments), day, kept, replaced).save()
    return rows


if __name__ == "__main__":
    sys.exit(main())
