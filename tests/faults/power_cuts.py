"""Power cuts: a service under load is watched by ``disk_shim.c``, and the disk is cut at many moments of that.

At each moment the folder is made as a power cut could have left it. Every turn that had been acknowledged by then must
be in the ledger, and everything must verify, after a start of the service too. The control runs the same with
``synchronous=NORMAL``: it must lose turns, or the model of the disk would be too kind to show anything.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.checks import wrong_after_restart, wrong_with_ledger
from tests.faults.journal import Disk, build_shim, entries, shim_environment
from tests.faults.load import Acknowledged, Load
from tests.processes import service_process
from tests.service.opm import environment
from tests.service.running import until
from tests.upstream import ScriptedUpstream

LAX_APP = "tests.faults.lax:app"
_RESTARTS_EVERY = 5


@dataclass
class PowerCuts:
    """What came of a run: how many cuts, how many turns had been acknowledged at the last, and what went wrong."""

    cuts: int = 0
    restarts: int = 0
    acknowledged: int = 0
    wrong: list[str] = field(default_factory=list)


def power_cuts(folder: Path, *, cuts: int, turns: int, seed: int, durable: bool = True) -> PowerCuts:
    """Run a service until it has acknowledged ``turns``, then cut the power at ``cuts`` moments of it."""
    storage, journal = folder / "storage", folder / "journal"
    storage.mkdir()
    library = build_shim(folder)
    assert library is not None, "there is no compiler"
    with ScriptedUpstream() as upstream:
        env = environment(storage, upstream)
        app = "service.app:app" if durable else LAX_APP
        with service_process({**env, **shim_environment(library, storage, journal)}, app=app) as service:
            load = Load([service.base_url], lambda: journal.stat().st_size)
            with load.running():
                until("enough turns were acknowledged", lambda: len(load.acknowledged) >= turns)
            service.kill9()
        return _cut(folder, journal, load.acknowledged, env, cuts=cuts, seed=seed)


def _cut(
    folder: Path, journal: Path, acknowledged: list[Acknowledged], env: dict[str, str], *, cuts: int, seed: int
) -> PowerCuts:
    rng, done = random.Random(seed), PowerCuts(acknowledged=len(acknowledged))  # noqa: S311 - not a secret
    for number, (moment, disk) in enumerate(_moments(journal, cuts, rng)):
        had = [turn for turn in acknowledged if turn.moment <= moment]
        with tempfile.TemporaryDirectory(dir=folder) as name:
            storage = Path(name)
            disk.after_power_cut(storage, rng)
            (storage / "mirror.boot").unlink(missing_ok=True)  # the machine starts anew
            if not (storage / "ledger.sqlite3").exists() and not had:
                continue
            done.cuts += 1
            wrong = wrong_with_ledger(storage, had)
            if not wrong and number % _RESTARTS_EVERY == 0:
                done.restarts += 1
                wrong = wrong_after_restart(storage, env, had)
            done.wrong += [f"cut at byte {moment} of the journal: {what}" for what in wrong]
    return done


def _moments(journal: Path, cuts: int, rng: random.Random) -> Iterator[tuple[int, Disk]]:
    """Yield the state of the disk at so many moments, in their order. Half of them follow a commit closely."""
    ends = [entry.end for entry in entries(journal)]
    wanted = sorted(rng.choices(range(len(ends)), k=cuts))
    disk, at = Disk(), 0
    for number, entry in enumerate(entries(journal)):
        disk.take(entry)
        while at < len(wanted) and wanted[at] == number:
            yield entry.end, disk
            at += 1


def can_cut() -> bool:
    """Tell whether this machine can: it takes a C compiler, and Linux."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        return build_shim(Path(folder)) is not None
