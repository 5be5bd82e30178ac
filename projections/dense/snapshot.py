"""The FAISS index of a snapshot: one user's vectors under their keys, flat and exact, by inner product.

Beside a large one, binary codes in memory tell which rows are worth reading.

FAISS's Python classes are generated and have attributes that no type checker knows, hence ``Any``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # faiss: its own threads under ours oversubscribe the processor

from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt

from projections.embedding.endpoint import Vectors

Storage = Literal["fp16", "fp32"]
Keys = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

ROWS_FOR_BINARY_CODES = 20_000
"""Fewer are read whole: that takes three milliseconds at most, and is exact."""
_TRAINED_ON = 20_000
_QUERY_BITS = 8


def empty_snapshot(dimensions: int, storage: Storage) -> Any:
    """Return an empty FAISS index: exact, inner product, with 64-bit keys."""
    inner: Any
    if storage == "fp16":
        inner = faiss.IndexScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    else:
        inner = faiss.IndexFlatIP(dimensions)
    return faiss.IndexIDMap(inner)


def keys_of(snapshot: Any) -> Keys:
    """Return a copy of the snapshot's keys, in the order of its rows."""
    keys: Keys = faiss.vector_to_array(snapshot.id_map).copy()
    return keys


def codes_of(snapshot: Any) -> Codes:
    """Return the rows as they are stored: a view, uint8 of shape (rows, bytes of a vector)."""
    stored: Any = faiss.downcast_index(snapshot.index)
    if not stored.ntotal:
        return np.empty((0, stored.code_size), np.uint8)
    codes: Codes = faiss.rev_swig_ptr(stored.codes.data(), stored.ntotal * stored.code_size)
    return codes.reshape(stored.ntotal, -1)


def read_rows(snapshot: Any, rows: npt.NDArray[np.int64]) -> Vectors:
    """Return copies of some rows: float32 of shape (rows, dimensions)."""
    if not len(rows):
        return np.empty((0, snapshot.d), np.float32)
    vectors: Vectors = snapshot.index.sa_decode(codes_of(snapshot)[rows])
    return vectors


def nearest_rows(snapshot: Any, query: Vectors, count: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Return the products and rows of the ``count`` rows nearest to ``query``, best first. Exact."""
    products, rows = snapshot.index.search(query[np.newaxis, :], count)
    return products[0], rows[0]


def binary_codes_of(snapshot: Any) -> Any | None:
    """Return a FAISS index with one bit for each number of a large snapshot (RaBitQ), None for a smaller one.

    It takes a second for 100,000 vectors of 1024 dimensions, a sixteenth of the memory of fp16, and finds in a tenth of
    the time which rows are worth reading.
    """
    if snapshot is None or snapshot.ntotal < ROWS_FOR_BINARY_CODES:
        return None
    codes: Any = faiss.IndexRaBitQ(snapshot.d, faiss.METRIC_INNER_PRODUCT)
    codes.qb = _QUERY_BITS
    step = -(-snapshot.ntotal // _TRAINED_ON)
    codes.train(read_rows(snapshot, np.arange(0, snapshot.ntotal, step)))
    for first in range(0, snapshot.ntotal, _TRAINED_ON):
        codes.add(read_rows(snapshot, np.arange(first, min(first + _TRAINED_ON, snapshot.ntotal))))
    return codes


def likely_rows(codes: Any, query: Vectors, count: int) -> npt.NDArray[np.int64]:
    """Return ``count`` rows among which those nearest to ``query`` very likely are."""
    rows: npt.NDArray[np.int64] = codes.search(query[np.newaxis, :], count)[1][0]
    return rows
