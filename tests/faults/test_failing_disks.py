"""A disk that fails for a while costs turns an error, and nothing else."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.faults.failing_disks import HALF_WRITTEN, failing_disk
from tests.faults.power_cuts import can_cut

pytestmark = pytest.mark.skipif(not can_cut(), reason="needs a C compiler")


@pytest.mark.parametrize(
    ("fault", "name"),
    [(errno.ENOSPC, "ledger"), (errno.EIO, "ledger"), (HALF_WRITTEN, "ledger"), (errno.ENOSPC, "users/")],
)
def test_the_service_goes_on_once_the_disk_is_well(tmp_path: Path, fault: int, name: str) -> None:
    done = failing_disk(tmp_path, fault=fault, name=name, first=3, count=40)
    assert done.wrong == []
    if fault != HALF_WRITTEN and name == "ledger":
        assert done.refused > 0
