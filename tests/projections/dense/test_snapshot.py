"""The rows of a snapshot are read as they were stored, whatever their storage."""

from __future__ import annotations

import numpy as np
import pytest

from projections.dense.snapshot import Storage, codes_of, empty_snapshot, keys_of, nearest_rows, read_rows

DIMENSIONS = 32


@pytest.mark.parametrize("storage", ["fp16", "fp32"])
def test_rows_keep_their_order_and_their_keys(storage: Storage) -> None:
    rows = np.random.default_rng(1).standard_normal((50, DIMENSIONS)).astype(np.float16).astype(np.float32)
    keys = np.arange(50, dtype=np.int64)[::-1] * 4 + 10**12
    snapshot = empty_snapshot(DIMENSIONS, storage)
    snapshot.add_with_ids(rows, keys)
    picked = np.array([7, 3, 3, 49])
    assert (keys_of(snapshot) == keys).all()
    assert (read_rows(snapshot, picked) == rows[picked]).all()
    assert codes_of(snapshot).shape == (50, DIMENSIONS * (2 if storage == "fp16" else 4))
    products, nearest = nearest_rows(snapshot, rows[11], 5)
    assert nearest.tolist() == np.argsort(-(rows @ rows[11]))[:5].tolist()
    assert (np.diff(products) <= 0).all()


@pytest.mark.parametrize("storage", ["fp16", "fp32"])
def test_an_empty_snapshot_has_no_rows(storage: Storage) -> None:
    snapshot = empty_snapshot(DIMENSIONS, storage)
    assert len(keys_of(snapshot)) == 0
    assert read_rows(snapshot, np.empty(0, np.int64)).shape == (0, DIMENSIONS)


def test_numbers_of_two_bytes_are_read_as_they_are() -> None:
    """Every one of them, the smallest and the largest too."""
    patterns = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = patterns[np.isfinite(patterns)].reshape(-1, 2**6)
    snapshot = empty_snapshot(2**6, "fp16")
    snapshot.add_with_ids(np.zeros((len(every), 2**6), np.float32), np.arange(len(every), dtype=np.int64))
    codes_of(snapshot)[:] = every.view(np.uint8)
    assert (read_rows(snapshot, np.arange(len(every))) == every.astype(np.float32)).all()
