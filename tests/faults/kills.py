"""Kills: a service under load, and commands beside it, end by SIGKILL at random moments.

After each kill the service starts again and people go on chatting. At the end every acknowledged turn must be in the
ledger, all projections must come to the head, and everything must verify.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.checks import verified, wrong_with_ledger
from tests.faults.load import Load
from tests.processes import ROOT, Service, service_process
from tests.service.opm import environment
from tests.service.running import until
from tests.upstream import ScriptedUpstream

_RUN_S = (0.02, 1.0)
_VERIFY_EVERY = 25


@dataclass
class Kills:
    """What came of a run: how often each program was killed, how many turns were acknowledged, what went wrong."""

    killed: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    wrong: list[str] = field(default_factory=list)


def kills(folder: Path, *, count: int, seed: int) -> Kills:
    """Kill the service, or a command beside it, ``count`` times."""
    rng, done = random.Random(seed), Kills()  # noqa: S311 - not a secret
    storage = folder / "storage"
    storage.mkdir()
    history = folder / "history.json"
    exchange = [{"role": "user", "content": "I sail."}, {"role": "assistant", "content": "Where to?"}]
    history.write_text(json.dumps(exchange * 200))
    with ScriptedUpstream() as upstream:
        env = environment(storage, upstream)
        with service_process(env) as service:
            load = Load([service.base_url], lambda: 0)
            with load.running():
                for number in range(count):
                    program = rng.choice(("service", "service", "service", "rebuild", "backup", "import", "erase"))
                    _kill(program, service, env, folder, history, number, rng)
                    done.killed[program] += 1
                    if number % _VERIFY_EVERY == _VERIFY_EVERY - 1:
                        done.wrong += wrong_with_ledger(storage, list(load.acknowledged))
            done.acknowledged = len(load.acknowledged)
            until("the mirror is at the head", lambda: not verified(storage)["mirror"]["behind"])
            service.terminate()
        with service_process(env) as service:  # finishes what an interrupted erasure left
            until("the mirror is at the head", lambda: not verified(storage)["mirror"]["behind"])
            service.terminate()
    done.wrong += wrong_with_ledger(storage, load.acknowledged)
    done.wrong += [str(finding) for finding in verified(storage)["findings"]]
    return done


def _kill(
    program: str, service: Service, env: dict[str, str], folder: Path, history: Path, number: int, rng: random.Random
) -> None:
    if program == "service":
        time.sleep(rng.uniform(*_RUN_S))
        service.kill9()
        service.start()
        return
    commands: dict[str, Sequence[str]] = {
        "rebuild": ("projections.rebuild",),
        "backup": ("service.cli", "backup", str(folder / f"backup-{number}.sqlite3")),
        "import": ("service.cli", "import", str(history), "--user", "imported"),
        "erase": ("service.cli", "erase", "--user", "imported", "--yes"),
    }
    given = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | env
    process = subprocess.Popen(
        [sys.executable, "-m", *commands[program]],
        cwd=folder,
        env={**given, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with suppress(subprocess.TimeoutExpired):
        process.wait(rng.uniform(0.3, 3.0))
    process.kill()
    process.wait()
