"""The nearest rows of a FAISS index, exactly: read whole, or by a coarse look that proves that it missed nothing.

A search reads every vector, so its time is that of reading memory. The coarse look reads half: a row ``x`` is kept in
eight bits a number as ``c`` with ``x = m + a * c + r``, where ``m`` and ``a`` are the middle and the step of each
dimension, the same for all rows. The query ``q`` is cut down to eight bits as well, ``a * q = u * w + t`` with whole
numbers ``w`` and one step ``u``, for that is the product that FAISS computes fastest. Then

    x.q  =  m.q  +  u c.w  +  c.t  +  r.q

The first term is the same for every row, the second is what FAISS computes, exactly, and the others are at most
``|c| |t|`` and ``|r| |q|`` (Cauchy-Schwarz). So no row that the look leaves out can score higher than the last one it
returns plus the largest of those: where the wanted rows, scored exactly, lie above that, they are the nearest.

Rows and query are turned first, by one and the same rotation, which changes no product. Of many models a few dimensions
reach much further than the others, and of their steps little would be left for the rest of the query; turned, no
dimension stands out.

FAISS's Python classes are generated and have attributes that no type knows, hence ``Any``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # faiss: threads of its own under ours cost 4 to 6 times the time

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from projections.embedding.client import Vectors

Rows = npt.NDArray[np.int64]

_ROWS_FOR_TWO_THREADS = 20_000
_THREADS = ThreadPoolExecutor(thread_name_prefix="index-search")
_CHUNK_ROWS = 1024
_STEPS = 127
_IN_VAIN_MAX = 8
_EPSILON = 2.0**-24
"""Largest relative error of one float32 operation."""
_SEED = 20261124


def nearest_rows(stored: Any, query: Vectors, wanted: int) -> tuple[Vectors, Rows]:
    """Return the products and rows of the ``wanted`` nearest, best first; a large index is searched by two threads."""
    total: int = stored.ntotal
    if total < _ROWS_FOR_TWO_THREADS or (os.cpu_count() or 1) < 2:
        products, rows = stored.search(query[np.newaxis, :], wanted)
        return products[0], rows[0]

    def searched(first: int, end: int) -> tuple[Vectors, Rows]:
        parameters: Any = faiss.SearchParameters  # its keyword arguments are added at run time
        part = parameters(sel=faiss.IDSelectorRange(first, end))
        # All of the nearest may lie in one half: what was said of one thing was said at one time.
        products, rows = stored.search(query[np.newaxis, :], min(wanted, end - first), params=part)
        return products[0], rows[0]

    middle = total // 2
    later = _THREADS.submit(searched, middle, total)
    halves = (searched(0, middle), later.result())
    products = np.concatenate([half[0] for half in halves])
    rows = np.concatenate([half[1] for half in halves])
    best = np.argsort(-products, kind="stable")[:wanted]
    return products[best], rows[best]


class CoarseLook:
    """Eight-bit codes of all rows of ``stored``, a flat or fp16 FAISS index that has some and never changes.

    They are derived, so they are kept in memory only: ``nbytes`` of it, a byte for each number of each vector, of which
    there are as many as the next power of two. ``in_vain`` counts looks that proved nothing, as whoever looked tells.
    Where all vectors crowd in one corner, their scores differ by less than what eight bits may miss, and each such look
    costs its time on top; so it is ``worthwhile`` only while half of them prove enough. Counts that threads get wrong
    by one do no harm.
    """

    def __init__(self, stored: Any) -> None:
        self._rotation = faiss.HadamardRotation(stored.d, _SEED)
        dimensions = self._rotation.d_out
        low, high = np.full(dimensions, np.inf, np.float32), np.full(dimensions, -np.inf, np.float32)
        for rows in _chunks(stored):
            turned = self._rotation.apply(rows)
            np.minimum(low, turned.min(axis=0), out=low)
            np.maximum(high, turned.max(axis=0), out=high)
        self._middle = (low + high) / 2
        # A dimension that never changes has no width, and any step serves.
        self._step = np.where(high > low, (high - low) / (2 * _STEPS), 1).astype(np.float32)
        self._stored = stored
        codes = np.empty((stored.ntotal, dimensions), np.uint8)
        residual = length = width = codes_length = 0.0
        at = 0
        for rows in _chunks(stored):
            length = max(length, _longest(rows))
            rest = self._rotation.apply(rows) - self._middle
            steps = np.clip(np.rint(rest / self._step), -_STEPS, _STEPS)
            codes[at : at + len(rows)] = steps + (_STEPS + 1)
            at += len(rows)
            codes_length = max(codes_length, _longest(steps))
            steps *= self._step
            width = max(width, _longest(steps))
            rest -= steps
            residual = max(residual, _longest(rest))
        # The float32 operations above and those of a search, each off by at most an epsilon's part of what it yields.
        rounding = (dimensions + 16) * _EPSILON * (length + width + float(np.linalg.norm(self._middle)))
        self._residual_max = residual + rounding
        self._codes_length_max = codes_length
        self._index = _codes_index(codes)
        self.nbytes = codes.nbytes
        self.in_vain = 0
        self._looks = 0

    @property
    def worthwhile(self) -> bool:
        return self.in_vain < _IN_VAIN_MAX or self.in_vain < self._looks // 2

    def nearest(self, query: Vectors, wanted: int, looked_at: int) -> tuple[Rows, float]:
        """Return the best ``wanted`` of the ``looked_at`` rows that seem nearest, and a score no other row exceeds.

        The score is -inf where there is no other row.
        """
        total = self._stored.ntotal
        seeming, floor = self._seeming(query, min(looked_at, total))
        if wanted >= len(seeming):
            return seeming, floor
        # Marked where they lie: to gather them first takes ten times as long as to score them.
        marks = np.zeros(total, np.bool_)
        marks[seeming] = True
        marked: Any = faiss.IDSelectorBitmap  # its arguments are made fit at run time, as those of the parameters
        parameters: Any = faiss.SearchParameters
        only = parameters(sel=marked(np.packbits(marks, bitorder="little")))
        products, rows = self._stored.search(query[np.newaxis, :], wanted, params=only)
        return rows[0], max(floor, float(products[0, -1]))

    def _seeming(self, query: Vectors, count: int) -> tuple[Rows, float]:
        self._looks += 1
        turned = self._rotation.apply(query[np.newaxis, :])[0]
        scaled = self._step * turned
        unit = float(np.abs(scaled).max()) / _STEPS or 1.0
        whole = np.rint(scaled / np.float32(unit))
        # By one thread: it reads nearly as fast as memory gives, and a second one is often asleep and late.
        products, rows = self._index.search(whole[np.newaxis, :], count)
        if count == self._stored.ntotal:
            return rows[0], -np.inf
        cut_off = float(np.linalg.norm(scaled - unit * whole))
        missed = self._residual_max * float(np.linalg.norm(query)) + self._codes_length_max * cut_off
        floor = unit * float(products[0, -1]) + float(np.dot(self._middle.astype(np.float64), turned))
        return rows[0], floor + missed


def _codes_index(codes: npt.NDArray[np.uint8]) -> Any:
    """Return a FAISS index over codes, uint8 of shape (rows, dimensions), of which each stands for itself less 128."""
    index: Any = faiss.IndexScalarQuantizer(
        codes.shape[1], faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
    )
    index.is_trained = True
    index.add_sa_codes(codes)
    return index


def _chunks(stored: Any) -> Any:
    """Yield all rows in order, float32 of shape (some, dimensions)."""
    for first in range(0, stored.ntotal, _CHUNK_ROWS):
        yield stored.reconstruct_n(first, min(_CHUNK_ROWS, stored.ntotal - first))


def _longest(rows: Vectors) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64).max()))
