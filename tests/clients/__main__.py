"""Drive every client, or one, against the service; or record what it sends.

    python -m tests.clients                      # all; the table goes to standard output
    python -m tests.clients --only langchain     # one
    python -m tests.clients --record             # without the service: renew tests/clients/recorded/
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.clients.catalogue import CLIENTS, Client
from tests.clients.environments import clean_environment
from tests.clients.model import ModelWithTools
from tests.clients.recording import RecordingProxy, recorded
from tests.processes import ROOT

CLIENT_S_MAX = 600


@dataclass(frozen=True)
class Row:
    """One line of the table: ``failed`` is empty where all went well."""

    client: str
    tried: str
    failed: str


def main() -> int:
    """Return 0 if every step of every client went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__.partition("\n")[0])
    names = [client.name for client in CLIENTS]
    parser.add_argument("--only", action="append", choices=names, help="this client; can be given more than once")
    parser.add_argument("--record", action="store_true", help="record requests, without the service between")
    parser.add_argument(
        "--environments", type=Path, default=ROOT / "build" / "clients", help="where the clients are installed"
    )
    arguments = parser.parse_args()
    rows: list[Row] = []
    for client in CLIENTS:
        if arguments.only is None or client.name in arguments.only:
            arguments.environments.mkdir(parents=True, exist_ok=True)
            client.environment.make(arguments.environments)
            made = record(client, arguments.environments) if arguments.record else []
            rows += made
            for row in made:
                sys.stdout.write(f"{row.client:16} {row.tried:45} {row.failed or 'OK'}\n")
                sys.stdout.flush()
    return int(any(row.failed for row in rows))


def record(client: Client, environments: Path) -> list[Row]:
    """Renew the recording of a client, against the model itself."""
    with ModelWithTools(says=client.says) as model, RecordingProxy(model.root_url) as proxy:
        rows = list(run(client, environments, proxy))
    day = datetime.now(UTC).date().isoformat()
    replaced = {str(environments): "ENVIRONMENTS", str(ROOT): "ROOT"}
    recorded(client.name, client.environment.version(environments), day, proxy.exchanges, replaced).save()
    return rows


def run(client: Client, environments: Path, proxy: RecordingProxy) -> Iterator[Row]:
    """Run a client's program through a proxy, and yield a row for each of its steps."""
    environment = clean_environment(
        OPENAI_BASE_URL=proxy.base_url, OPENAI_API_KEY="sk-client", CLIENT_MODEL="scripted-chat"
    )
    command = client.environment.command(environments, client.program)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=CLIENT_S_MAX)
    for line in done.stdout.splitlines():
        if line.startswith('{"step"'):
            step = json.loads(line)
            yield Row(client.name, step["step"], step["failed"])
    if done.returncode:
        yield Row(client.name, "the program", (done.stderr.strip().splitlines() or ["failed"])[-1][:300])
    if done.stderr:
        (environments / f"{client.name}.stderr.txt").write_text(done.stderr)


if __name__ == "__main__":
    sys.exit(main())
