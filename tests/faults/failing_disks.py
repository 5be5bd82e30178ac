"""Failing disks: writes and syncs of a service under load fail for a while, then the disk is well again.

Nothing acknowledged may be lost, turns must go on once the disk is well, without a restart, and the mirror and all
indices must come to the head of the ledger by themselves.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.faults.checks import verified, wrong_with_ledger
from tests.faults.journal import build_shim, shim_environment
from tests.faults.load import Load
from tests.processes import service_process
from tests.service.opm import environment
from tests.service.running import until
from tests.upstream import ScriptedUpstream

HALF_WRITTEN = 0
FAULTS = (errno.ENOSPC, errno.EIO, HALF_WRITTEN)
_TURNS = 15


@dataclass
class FailingDisk:
    """What came of one run. ``refused`` counts the turns that were answered with an error meanwhile."""

    fault: int
    name: str
    first: int
    acknowledged: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


def failing_disk(folder: Path, *, fault: int, name: str, first: int, count: int) -> FailingDisk:
    """Let ``count`` writes to files with ``name`` in their path fail, from the one numbered ``first``."""
    storage, script = folder / "storage", folder / "fail"
    storage.mkdir()
    library = build_shim(folder)
    assert library is not None, "there is no compiler"
    done = FailingDisk(fault, name, first)
    with ScriptedUpstream() as upstream:
        env = environment(storage, upstream) | shim_environment(library, storage, folder / "journal", script)
        with service_process(env) as service:
            load = Load([service.base_url], lambda: 0)
            with load.running():
                until("turns are acknowledged", lambda: len(load.acknowledged) >= _TURNS)
                script.write_text(f"{fault} {first} {count} {name}")
                before = len(load.acknowledged) + load.refused + load.broken
                until(
                    "turns met the fault",
                    lambda: len(load.acknowledged) + load.refused + load.broken >= before + _TURNS,
                )
                script.unlink()
                well = len(load.acknowledged)
                until("turns are acknowledged again", lambda: len(load.acknowledged) >= well + _TURNS)
            done.acknowledged, done.refused = len(load.acknowledged), load.refused
            until("the mirror is at the head", lambda: not verified(storage)["mirror"]["behind"])
            until("it is ready", lambda: _ready(service.base_url))
            service.terminate()
        done.wrong = wrong_with_ledger(storage, load.acknowledged)
        done.wrong += [str(finding) for finding in verified(storage)["findings"]]
    return done


def _ready(base_url: str) -> bool:
    return httpx2.get(f"{base_url}/health/ready", timeout=10, trust_env=False).status_code == 200
