"""The indices held in memory, up to a budget of bytes: the one used longest ago makes room.

An index grows while it is held, so its size is measured again whenever it is used. The total is kept as a running sum:
to add up thousands of sizes would cost more than opening one index.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

_OVERHEAD_BYTES = 4096
"""Of the objects around the arrays of an index, most of them FAISS's."""


class Sized(Protocol):
    """Something that knows how much memory it holds."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Sized)


class OpenIndices(Generic[K, V]):
    """At most ``bytes_max`` of indices, or the one used last where it alone is larger. Safe to call from any thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held: OrderedDict[K, V] = OrderedDict()
        self._counted: dict[K, int] = {}
        self._lock = threading.Lock()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[K]:
        """Iterate over the keys held now, the one used last at the end."""
        with self._lock:
            return iter(list(self._held))

    def get(self, key: K, load: Callable[[], V]) -> V:
        """Return the index held under ``key``, else the one that ``load`` gives.

        Two threads may load the same one at the same time; both get the one that was first.
        """
        index = self.get_held(key)
        if index is not None:
            return index
        index = load()
        with self._lock:
            index = self._held.setdefault(key, index)
            self._used(key, index)
            return index

    def get_held(self, key: K) -> V | None:
        """Return the index held under ``key``, None where there is none."""
        with self._lock:
            index = self._held.get(key)
            if index is not None:
                self._used(key, index)
            return index

    def drop(self, key: K, index: V) -> None:
        """Let go of this very index, if it is the one that is held."""
        with self._lock:
            if self._held.get(key) is index:
                del self._held[key]
                self._count(key, 0)

    def drop_where(self, matches: Callable[[K], bool]) -> None:
        """Let go of every index whose key matches."""
        with self._lock:
            for key in [key for key in self._held if matches(key)]:
                del self._held[key]
                self._count(key, 0)

    def _used(self, key: K, index: V) -> None:
        """Measure a held index again, and make room where it has grown."""
        self._held.move_to_end(key)
        self._count(key, index.nbytes + _OVERHEAD_BYTES)
        while self.nbytes > self._bytes_max and len(self._held) > 1:
            oldest, _ = self._held.popitem(last=False)
            self._count(oldest, 0)

    def _count(self, key: K, nbytes: int) -> None:
        self.nbytes += nbytes - self._counted.pop(key, 0)
        if nbytes:
            self._counted[key] = nbytes
