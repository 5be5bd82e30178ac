"""Damage: bits are flipped and ends are cut off in every file of a storage, one at a time.

What is damaged must be found by ``opm verify``, or be made anew by a service that starts there, or make no difference
to what it answers. It must never be served, and never make a service fail.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.faults.checks import verified
from tests.faults.load import Load
from tests.processes import DidNotStartError, service_process
from tests.service.opm import environment
from tests.service.running import until
from tests.upstream import ScriptedUpstream

_TURNS = 80
_QUESTION = "What is my number 7?"
"""One for each user: what is asked becomes a memory, and when its vector is there is not for this to know."""
_PARTS = ("replay", "summary_only")
_NOT_CONTENT = (".lock", "-shm", ".boot")


@dataclass
class Damage:
    """What came of each damaged file, by its kind: ``found``, ``refused``, ``made anew`` or ``harmless``."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def damage(folder: Path, *, count: int, seed: int) -> Damage:
    """Make a storage, and damage one file of a copy ``count`` times."""
    whole, rng, done = folder / "whole", random.Random(seed), Damage()  # noqa: S311 - not a secret
    whole.mkdir()
    with ScriptedUpstream() as upstream:
        env = environment(whole, upstream)
        with service_process(env) as service:
            load = Load([service.base_url], lambda: 0, users=2)
            with load.running():
                until("enough turns were acknowledged", lambda: len(load.acknowledged) >= _TURNS)
            until("the mirror is at the head", lambda: not verified(whole)["mirror"]["behind"])
            service.terminate()
        assert not verified(whole)["findings"]
        expected = _answers(_copied(whole, folder / "asked"), env)
        files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
        files = [path for path in files if not path.name.endswith(_NOT_CONTENT) and (whole / path).stat().st_size]
        for number in range(count):
            path = files[number % len(files)]
            storage = _copied(whole, folder / "damaged")
            what = _damage(storage / path, rng)
            outcome = _outcome(storage, env, expected)
            if outcome.startswith("WRONG"):
                done.wrong.append(f"{path}, {what}: {outcome}")
            done.outcomes[_kind(path), outcome.partition(":")[0]] += 1
    return done


def _outcome(storage: Path, env: Mapping[str, str], expected: Any) -> str:
    findings = verified(storage)["findings"]
    try:
        answers = _answers(storage, env)
    except DidNotStartError as error:
        log = str(error)
        return "refused" if "Traceback" not in log else f"WRONG: the start ends in a traceback: {log[-500:]}"
    except AssertionError as error:
        return f"WRONG: {error}"
    if answers != expected and not findings:
        return "WRONG: other memories are served, and nothing was found"
    after = verified(storage)["findings"]
    if findings:
        return "found, and made anew" if not after else "found"
    return "harmless" if not after else f"WRONG: found only later, {after[0]}"


def _answers(storage: Path, env: Mapping[str, str]) -> Any:
    """Return which memories a service recalls for each user."""
    recalled = []
    with service_process({**env, "STORAGE_DIR": str(storage)}) as service:
        for user in ("user-0", "user-1"):
            body = {
                "messages": [{"role": "user", "content": _QUESTION}],
                "user": user,
                "metadata": {"conversation_id": "asked", "recent_turns": 0, "use_gate": False},
            }
            answer = httpx2.post(f"{service.base_url}/v1/chat/completions", json=body, timeout=30, trust_env=False)
            assert answer.status_code == 200, f"status {answer.status_code}: {answer.text[:300]}"
            retrieved = answer.json()["retrieved"]
            recalled.append(sorted(item["memory_id"] for part in _PARTS for item in retrieved[part]))
        until("the mirror is at the head", lambda: not verified(storage)["mirror"]["behind"])
        service.terminate()
    return recalled


def _copied(whole: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(whole, target)
    return target


def _damage(path: Path, rng: random.Random) -> str:
    """Flip a bit, overwrite some bytes with zeros, or cut off the end."""
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    kind = rng.choice(("flip", "flip", "zeros", "cut"))
    if kind == "flip":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "zeros":
        length = min(4096, len(content) - at)
        content[at : at + length] = bytes(length)
    else:
        del content[at:]
    path.write_bytes(content)
    return f"{kind} at byte {at}"


def _kind(path: Path) -> str:
    """Return a name for files like this one."""
    if path.suffix == ".jsonl":
        return "mirror"
    return path.name if path.parent == Path() else f"index/{path.name}"
