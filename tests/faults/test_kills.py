"""Killed again and again, a service loses nothing that it acknowledged."""

from __future__ import annotations

from pathlib import Path

from tests.faults.kills import kills


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    done = kills(tmp_path, count=6, seed=4)
    assert done.wrong == []
    assert done.acknowledged > 0
    assert done.killed["service"] > 0
