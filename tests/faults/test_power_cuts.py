"""A power cut loses nothing that was acknowledged, and leaves a storage that a service can go on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.power_cuts import can_cut, power_cuts

pytestmark = pytest.mark.skipif(not can_cut(), reason="needs a C compiler")


def test_what_was_acknowledged_is_there_after_a_power_cut(tmp_path: Path) -> None:
    done = power_cuts(tmp_path, cuts=20, turns=60, seed=1)
    assert done.wrong == []
    assert done.cuts > 10
    assert done.restarts > 0


def test_a_service_that_does_not_wait_for_the_disk_loses_turns(tmp_path: Path) -> None:
    done = power_cuts(tmp_path, cuts=20, turns=60, seed=1, durable=False)
    assert any("is lost" in what for what in done.wrong)
