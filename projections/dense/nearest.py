"""The nearest rows of a FAISS index, exactly: read whole, or by a coarse look that tells which rows need no reading.

A search reads every vector, so its time is that of reading memory. The coarse look reads half: a row ``x`` is kept in
eight bits a number as ``c`` with ``x = m + a * c + r``, where ``m`` and ``a`` are the middle and the step of each
dimension, the same for all rows. The query ``q`` is cut down to eight bits as well, ``a * q = u * w + t`` with whole
numbers ``w`` and one step ``u``, for of whole numbers a processor multiplies most at a time. Then

    x.q  =  m.q  +  u c.w  +  c.t  +  r.q

The first term is the same for every row, the second is computed exactly, and the others are at most ``|c| |t|`` and
``|r| |q|`` (Cauchy-Schwarz). So it is known of each row between which bounds its score lies, and only those rows need
to be scored whose upper bound reaches the last of as many as are wanted.

Rows and query are turned first, by one and the same rotation, which changes no product. Of many models a few dimensions
reach much further than the others, and of their steps little would be left for the rest of the query; turned, no
dimension stands out.

FAISS's Python classes are generated and have attributes that no type knows, hence ``Any``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # faiss: threads of its own under ours cost 4 to 6 times the time

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numkong
import numpy as np
import numpy.typing as npt

from projections.embedding.endpoint import Vectors

Rows = npt.NDArray[np.int64]

_ROWS_FOR_TWO_THREADS = 20_000
_THREADS = ThreadPoolExecutor(thread_name_prefix="index-search")
_CHUNK_ROWS = 1024
_STEPS = 127
_IN_VAIN_MAX = 8
_EPSILON = 2.0**-24
"""Largest relative error of one float32 operation."""
_SEED = 20261124
_SAMPLE_STEP = 32


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
    there are as many as the next power of two. ``in_vain`` counts looks that left too much to read, as whoever looked
    tells. Where all vectors crowd in one corner, their scores differ by less than what eight bits may miss, and each
    such look costs its time on top; so it is ``worthwhile`` only while half of them are of use. Counts that threads get
    wrong by one do no harm.
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
        self._codes = np.empty((stored.ntotal, dimensions), np.int8)
        residual = length = width = codes_length = 0.0
        at = 0
        for rows in _chunks(stored):
            length = max(length, _longest(rows))
            rest = self._rotation.apply(rows) - self._middle
            steps = np.clip(np.rint(rest / self._step), -_STEPS, _STEPS)
            self._codes[at : at + len(rows)] = steps
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
        self.nbytes = self._codes.nbytes
        self.in_vain = 0
        self._looks = 0

    @property
    def worthwhile(self) -> bool:
        return self.in_vain < _IN_VAIN_MAX or self.in_vain < self._looks // 2

    def scores(self, query: Vectors) -> tuple[npt.NDArray[np.float64], float]:
        """Return about what each row scores, float64 of shape (rows,), and by how much a score may be off at most."""
        self._looks += 1
        turned = self._rotation.apply(query[np.newaxis, :])[0]
        scaled = (self._step * turned).astype(np.float64)
        unit = float(np.abs(scaled).max()) / _STEPS or 1.0
        whole = np.rint(scaled / unit)
        products = np.asarray(numkong.cdist(whole.astype(np.int8)[np.newaxis, :], self._codes, "dot"), np.float64)[0]
        products *= unit
        products += float(np.dot(self._middle.astype(np.float64), turned))
        cut_off = float(np.linalg.norm(scaled - unit * whole))
        return products, self._residual_max * float(np.linalg.norm(query)) + self._codes_length_max * cut_off


def codes_of(stored: Any) -> npt.NDArray[np.uint8]:
    """Return the rows of a flat or fp16 index as they are stored: uint8 of shape (rows, bytes of a vector)."""
    codes: npt.NDArray[np.uint8] = faiss.rev_swig_ptr(stored.codes.data(), stored.ntotal * stored.code_size)
    return codes.reshape(stored.ntotal, -1)


def read_rows(stored: Any, rows: Rows | slice) -> Vectors:
    """Return some rows of a flat or fp16 index: float32 of shape (rows, dimensions)."""
    if not stored.ntotal:
        return np.empty((0, stored.d), np.float32)
    codes = codes_of(stored)[rows]
    if stored.code_size == 2 * stored.d:
        # FAISS and NumPy convert one number at a time. Not all at once: no other thread runs Python meanwhile.
        halves, vectors = codes.view(np.float16), np.empty((len(codes), stored.d), np.float32)
        for first in range(0, len(codes), _CHUNK_ROWS):
            chunk = slice(first, first + _CHUNK_ROWS)
            numkong.astype(halves[chunk], "float32", out=vectors[chunk])
        return vectors
    return codes.view(np.float32)


def highest(scores: npt.NDArray[np.float64], count: int) -> Rows:
    """Return where the ``count`` highest scores stand, in no order."""
    if count >= len(scores):
        return np.arange(len(scores))
    # To sort out the highest of all takes as long as to compute them: a sample tells which need not be looked at.
    sample = scores[::_SAMPLE_STEP]
    among = min(2 * count // _SAMPLE_STEP + _SAMPLE_STEP, len(sample))
    rows = np.flatnonzero(scores >= np.partition(sample, len(sample) - among)[len(sample) - among])
    if len(rows) < count:
        rows = np.arange(len(scores))
    return rows[np.argpartition(scores[rows], len(rows) - count)[len(rows) - count :]]


def _chunks(stored: Any) -> Iterator[Vectors]:
    """Yield all rows in order, float32 of shape (some, dimensions)."""
    for first in range(0, stored.ntotal, _CHUNK_ROWS):
        yield read_rows(stored, slice(first, first + _CHUNK_ROWS))


def _longest(rows: Vectors) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64).max()))
