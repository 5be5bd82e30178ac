"""The FAISS index of a snapshot: one user's vectors under their keys, flat and exact, by inner product.

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
    codes = codes_of(snapshot)[rows]
    stored_as = np.float16 if codes.shape[1] == 2 * snapshot.d else np.float32
    return codes.view(stored_as).astype(np.float32)


def nearest_rows(snapshot: Any, query: Vectors, count: int) -> tuple[Vectors, npt.NDArray[np.int64]]:
    """Return the products and rows of the ``count`` rows nearest to ``query``, best first."""
    products, rows = snapshot.index.search(query[np.newaxis, :], count)
    return products[0], rows[0]
