"""``python -m tests.faults``: the long campaigns, and a table of what came of them.

Their sizes are those of ``docs/reliability.md``; ``--share 0.1`` runs a tenth of each. ``--only NAME`` runs one.
``--seed N`` makes other choices, so that several runs add up.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.damage import damage
from tests.faults.failing_disks import FAULTS, failing_disk
from tests.faults.kills import kills
from tests.faults.life import Life
from tests.faults.power_cuts import power_cuts
from tests.faults.two_services import two_services

Outcome = tuple[str, list[str]]
"""What was done, in a few words, and what went wrong."""


def _kills(folder: Path, share: float, seed: int) -> Outcome:
    done = kills(folder, count=max(int(1000 * share), 5), seed=seed)
    killed = ", ".join(f"{name} {count}" for name, count in sorted(done.killed.items()))
    return f"{done.killed.total()} kills ({killed}), {done.acknowledged} turns acknowledged", done.wrong


def _power_cuts(folder: Path, share: float, seed: int) -> Outcome:
    done = power_cuts(folder, cuts=max(int(500 * share), 10), turns=200, seed=seed)
    return f"{done.cuts} cuts, {done.restarts} restarts, {done.acknowledged} turns acknowledged", done.wrong


def _control(folder: Path, share: float, seed: int) -> Outcome:
    done = power_cuts(folder, cuts=max(int(100 * share), 10), turns=100, seed=seed, durable=False)
    lost = sum("is lost" in what for what in done.wrong)
    return f"{done.cuts} cuts without waiting for the disk: {lost} losses", [] if lost else ["the control lost nothing"]


def _failing_disks(folder: Path, share: float, _seed: int) -> Outcome:
    wrong, runs, refused = [], 0, 0
    for first in range(1, max(int(40 * share), 2)):
        for fault in FAULTS:
            for name in ("ledger", "users/", "vectors"):
                own = folder / f"{first}-{fault}-{name.strip('/')}"
                own.mkdir()
                done = failing_disk(own, fault=fault, name=name, first=first, count=1 + first % 30)
                runs, refused = runs + 1, refused + done.refused
                wrong += [f"fault {fault} at {name} from write {first}: {what}" for what in done.wrong]
    return f"{runs} disks that failed for a while, {refused} turns refused meanwhile", wrong


def _damage(folder: Path, share: float, seed: int) -> Outcome:
    done = damage(folder, count=max(int(500 * share), 10), seed=seed)
    outcomes = ", ".join(f"{kind} {what} {count}" for (kind, what), count in sorted(done.outcomes.items()))
    return f"{done.outcomes.total()} damaged files: {outcomes}", done.wrong


def _life(_folder: Path, share: float, _seed: int) -> Outcome:
    runs = max(int(500 * share), 5)
    run_state_machine_as_test(  # raises at the first difference
        Life,
        settings=settings(
            max_examples=runs, stateful_step_count=100, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    return f"{runs} lives of 100 steps", []


def _two_services(folder: Path, share: float, _seed: int) -> Outcome:
    seconds = max(300 * share, 5)
    done = two_services(folder, users=16, clients_of_each=4, seconds=seconds)
    not_acknowledged = f"{done.refused} refused, {done.broken} broken off"
    return f"64 clients for {seconds:.0f} s, {done.acknowledged} turns acknowledged, {not_acknowledged}", done.wrong


CAMPAIGNS: Mapping[str, Callable[[Path, float, int], Outcome]] = {
    "kills": _kills,
    "power-cuts": _power_cuts,
    "control": _control,
    "failing-disks": _failing_disks,
    "damage": _damage,
    "life": _life,
    "two-services": _two_services,
}


def main() -> int:
    """Run the campaigns; return 1 where something went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", choices=CAMPAIGNS, action="append")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    failed = False
    _say("| campaign | what was done | went wrong | minutes |\n| --- | --- | --- | --- |")
    for name in given.only or CAMPAIGNS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            did, wrong = CAMPAIGNS[name](Path(folder), given.share, given.seed)
        failed = failed or bool(wrong)
        _say(f"| {name} | {did} | {len(wrong)} | {(time.monotonic() - began) / 60:.1f} |")
        for what in wrong[:20]:
            sys.stderr.write(f"{name}: {what}\n")
    return int(failed)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
