"""The open indices of all users: held in memory, loaded from their files, and written to them.

**Erasure.** Each erasure, of a user or of a part of their memory, begins a new epoch when it starts and another one
when it is done, and the epoch is part of the key that an index is held under. So an index of an earlier epoch is never
found again, whoever still works on it, and the first to open any index in the new epoch lets go of all earlier ones: a
mapped file would keep its bytes on the disk. Whoever fills an index adds only what was read while its epoch lasted (see
:mod:`projections.dense.catch_up`).

Files outlive epochs, so for them the ledger is asked: a snapshot names the last event it holds, and that event is no
longer the user's once they are erased. It is looked up when a file is loaded, before one is written (nothing erased is
written again) and after (an erasure may have removed the folder while the file was being made). The erasure of a part
leaves that event the user's, so after a write the epoch is compared too.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from domain.errors import IndexCorrupt
from domain.identity import file_name
from domain.ledger_reader import Erasures, LedgerReader
from projections.dense.index_files import IndexFiles
from projections.dense.open_indices import OpenIndices
from projections.dense.snapshot import Storage
from projections.dense.user_index import UserIndex
from projections.embedding.endpoint import EmbeddingSpace

log = logging.getLogger(__name__)

Epoch = tuple[int, int]


def epoch_of(erasures: Erasures) -> Epoch:
    """Return a value that grows whenever an erasure begins or is done."""
    return erasures.begun + erasures.parts_at, -erasures.unfinished


class IndexKey(NamedTuple):
    """Whose index, in which embedding space, made in which epoch."""

    user_id: str
    space: EmbeddingSpace
    epoch: Epoch


class IndexStore:
    """Opens, holds and writes the indices of all users. Safe to call from any thread."""

    def __init__(self, reader: LedgerReader, users_dir: Path, storage: Storage, bytes_max: int) -> None:
        self.held: OpenIndices[IndexKey, UserIndex] = OpenIndices(bytes_max)
        self._reader = reader
        self._users_dir = users_dir
        self._storage: Storage = storage
        self._epoch: Epoch = (0, 0)

    def open(self, key: IndexKey) -> UserIndex:
        """Return the index held under ``key``, else what its files hold, else an empty one."""
        if key.epoch > self._epoch:
            self._epoch = key.epoch
            self.held.drop_where(lambda held: held.epoch < key.epoch)
        return self.held.get(key, lambda: self._load(key))

    def hold(self, key: IndexKey, index: UserIndex) -> None:
        """Hold an index that may have made room for others while it was filled, unless another has read further."""
        held = self.held.get(key, lambda: index)
        if held.position < index.position:
            self.held.drop(key, held)
            self.held.get(key, lambda: index)
        if key.epoch < self._epoch:
            self.held.drop_where(lambda other: other == key)

    def drop_if_file_is_ahead(self, key: IndexKey, index: UserIndex) -> bool:
        """Let go of an index that lags behind its own file, for instance since a rebuild; tell whether it did."""
        try:
            manifest = self._files(key).manifest()
        except IndexCorrupt:
            return False
        if manifest is None or manifest.position <= index.position:
            return False
        self.held.drop(key, index)
        return True

    def save(self, key: IndexKey, index: UserIndex) -> None:
        """Write a snapshot, and let the index go on with the written one, mapped from the disk."""
        snapshot, position = index.snapshot()
        if not self._reader.belongs(key.user_id, position):
            return
        files = self._files(key)
        written = files.load(files.save(snapshot, index.storage, position, self._reader.hash_at(position)))
        now = epoch_of(self._reader.memory_state(key.user_id).erasures)
        if now != key.epoch or not self._reader.belongs(key.user_id, position):
            files.remove()
            return
        index.adopt(written)

    def _load(self, key: IndexKey) -> UserIndex:
        try:
            index = self._files(key).open(self._reader, self._storage)
        except IndexCorrupt as error:
            log.warning("an index is built again from the ledger: users/%s: %s", file_name(key.user_id), error)
            index = None
        return index or UserIndex(key.space.dimensions, self._storage)

    def _files(self, key: IndexKey) -> IndexFiles:
        return IndexFiles(self._users_dir, key.user_id, key.space)
