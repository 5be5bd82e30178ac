"""Vectors by model and text: nothing is embedded twice.

One SQLite file for all users and generations. The key of a text is its SHA-256, so the cache holds no text. Its content
can be computed again, so its commits need not wait for the disk. A row without a vector marks a text that the model
refuses.

A disk may change what is stored. Each vector has a checksum, and one that does not match counts as unknown: it is
embedded again. A file that SQLite finds broken is put aside, and a new one is begun under the same numbers.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError, OperationalError

from domain.errors import IndexUnavailable
from domain.sqlite import checkpoint, open_engine, truncate_wal, until_emptied
from projections.embedding.endpoint import EmbeddingSpace

log = logging.getLogger(__name__)

_METADATA = MetaData()
_SPACES = Table(
    "spaces",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("model", Text, nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("passage_prefix", Text, nullable=False),
    Column("position", Integer, nullable=False, default=0),
    UniqueConstraint("model", "dimensions", "passage_prefix"),
)
_VECTORS = Table(
    "vectors",
    _METADATA,
    Column("space_id", Integer, primary_key=True),
    Column("text_hash", LargeBinary, primary_key=True),
    Column("vector", LargeBinary),
    # Earlier versions kept none: what they wrote has only its length of 1 to be checked by.
    Column("checksum", Integer),
    sqlite_with_rowid=False,
)
_LOOKUP_MAX = 500
_SELECT = "SELECT text_hash, vector, checksum FROM vectors"
_PAGE_BYTES = 16_384
"""Vectors of 1024 half-precision numbers spill over a default page, which doubles the file."""
_PAGES_PER_RELEASE = 256
_CHECKPOINT_BYTES = 8 * 1024 * 1024
_LENGTH_ERROR_MAX = 1e-3
"""By so much at most the length of a vector of half-precision numbers differs from 1."""
_PRIMARY_CODE = 0xFF
_BROKEN = frozenset({11, 26})
"""SQLite's codes for a damaged file and for one that is no database."""


def _opened(path: Path) -> Engine:
    """Open the cache for writing; one that is no database is put aside, since all in it can be embedded again."""
    for attempt in range(2):
        engine = open_engine(path, writer=True, durable=False, page_bytes=_PAGE_BYTES, shrinks=True)
        try:
            with engine.begin() as connection:
                _METADATA.create_all(connection)
                columns = connection.exec_driver_sql("SELECT name FROM pragma_table_info('vectors')").scalars().all()
                if _VECTORS.c.checksum.name not in columns:
                    connection.exec_driver_sql("ALTER TABLE vectors ADD COLUMN checksum INTEGER")
        except DatabaseError as error:
            engine.dispose()
            if attempt or isinstance(error, OperationalError):
                raise IndexUnavailable(f"{path.name} cannot be opened ({error.orig})") from None
            _put_aside(path, error)
        else:
            return engine
    raise AssertionError("unreachable: the second attempt returns or raises")


def _put_aside(path: Path, error: DatabaseError) -> None:
    log.warning("%s is broken (%s): it is put aside, and vectors are embedded again", path.name, error.orig)
    for part in ("", "-wal", "-shm"):
        broken = path.with_name(path.name + part)
        if broken.exists():
            broken.replace(path.with_name(f"{path.name}.broken{part}"))


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else 0


Cached = np.ndarray[tuple[int], np.dtype[np.float32]] | None


def _space_row(space: EmbeddingSpace, **more: int) -> dict[str, Any]:
    row = {"model": space.model, "dimensions": space.dimensions, "passage_prefix": space.passage_prefix}
    return {**row, "position": 0, **more}


def text_hash(text: str) -> bytes:
    """Return the 32 bytes by which a text is known."""
    return hashlib.sha256(text.encode("utf-8")).digest()


class VectorCache:
    """The cache in ``path``; ``half`` stores fp16 instead of fp32. Safe to call from any thread."""

    def __init__(self, path: Path, *, half: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.half = half
        self._stored = np.dtype(np.float16 if half else np.float32)
        self._writer = _opened(path)
        self._readers = open_engine(path, writer=False)
        self._path = path
        self._inode = _inode(path)
        self._renewing = threading.Lock()
        self._damage_told = False
        self._bytes_since_checkpoint = 0
        self._dimensions_of: dict[int, int] = {}
        self._ids: dict[EmbeddingSpace, int] = {}

    def close(self) -> None:
        self._readers.dispose()
        self._writer.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._readers.connect() as connection:
                yield connection
        except DatabaseError as error:
            self._renew_if_broken(error)
            raise

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._writer.begin() as connection:
                yield connection
        except DatabaseError as error:
            self._renew_if_broken(error)
            raise

    def _renew_if_broken(self, error: DatabaseError) -> None:
        """Begin a new file where SQLite finds this one broken: the next call then works, and this one fails."""
        if getattr(error.orig, "sqlite_errorcode", 0) & _PRIMARY_CODE not in _BROKEN:
            return
        with self._renewing:
            if _inode(self._path) == self._inode:  # not put aside already, here or by another process
                _put_aside(self._path, error)
            writer, readers = self._writer, self._readers
            self._writer, self._readers = _opened(self._path), open_engine(self._path, writer=False)
            self._inode = _inode(self._path)
            writer.dispose()
            readers.dispose()
            with self._writer.begin() as connection:
                for space, number in self._ids.items():
                    # Whoever works in a space knows it by its number.
                    connection.execute(upsert(_SPACES).values(_space_row(space, id=number)).on_conflict_do_nothing())

    def space_id(self, space: EmbeddingSpace) -> int:
        """Return the number under which vectors of ``space`` are kept."""
        known = self._ids.get(space)
        if known is None:
            known = self._ids[space] = self._stored_id(space)
        return known

    def _stored_id(self, space: EmbeddingSpace) -> int:
        query = select(_SPACES.c.id).where(
            _SPACES.c.model == space.model,
            _SPACES.c.dimensions == space.dimensions,
            _SPACES.c.passage_prefix == space.passage_prefix,
        )
        with self._reading() as connection:
            known = connection.execute(query).scalar_one_or_none()
        if known is not None:
            return int(known)
        with self._writing() as connection:
            connection.execute(upsert(_SPACES).values(_space_row(space)).on_conflict_do_nothing())
            return int(connection.execute(query).scalar_one())

    def get(self, space_id: int, hashes: Sequence[bytes]) -> dict[bytes, Cached]:
        """Return what is known: float32 of shape (dimensions,), or None for a text that the model refuses."""
        return {key: self._decode(space_id, blob) for key, blob in self.blobs(space_id, hashes).items()}

    def blobs(self, space_id: int, hashes: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """Return what :meth:`get` does, the vectors as they are stored: fp16 or fp32, little-endian."""
        blobs: dict[bytes, bytes | None] = {}
        for row in self._rows(space_id, hashes):
            if self._is_whole(space_id, row):
                blobs[row.text_hash] = row.vector
            elif not self._damage_told:
                self._damage_told = True
                log.warning("%s has vectors that were changed: they are embedded again", self._path.name)
        return blobs

    def known(self, space_id: int, hashes: Sequence[bytes]) -> set[bytes]:
        """Return which texts are known, those that the model refuses included."""
        return set(self.blobs(space_id, hashes))

    def damaged(self) -> int:
        """Read the whole cache and change nothing; return how many vectors are not as they were written."""
        with self._readers.connect() as connection:
            rows = connection.execute(select(_VECTORS)).yield_per(_LOOKUP_MAX)
            return sum(not self._is_whole(row.space_id, row) for row in rows)

    def _is_whole(self, space_id: int, row: Row[Any]) -> bool:
        if row.vector is None or row.checksum is not None:
            return row.vector is None or zlib.crc32(row.vector) == row.checksum
        if len(row.vector) not in {2 * self._dimensions(space_id), 4 * self._dimensions(space_id)}:
            return False
        vector = self._decode(space_id, row.vector)
        assert vector is not None
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is not 1 either
            return abs(float(np.linalg.norm(vector)) - 1) <= _LENGTH_ERROR_MAX

    def _rows(self, space_id: int, hashes: Sequence[bytes]) -> Iterator[Row[Any]]:
        # Plain SQL: expanding the list each time would take as long as finding the texts. In the order of the key,
        # the next row is often on the page just read.
        wanted = sorted(set(hashes))
        with self._reading() as connection:
            for start in range(0, len(wanted), _LOOKUP_MAX):
                part = wanted[start : start + _LOOKUP_MAX]
                marks = ",".join("?" * len(part))
                query = f"{_SELECT} WHERE space_id = ? AND text_hash IN ({marks})"
                yield from connection.exec_driver_sql(query, (space_id, *part)).all()

    def put(self, space_id: int, vectors: Mapping[bytes, Cached], *, position: int | None = None) -> None:
        """Keep vectors, and in the same transaction the ledger position up to which all texts are now embedded."""
        rows: list[dict[str, Any]] = [
            {
                "space_id": space_id,
                "text_hash": key,
                "vector": blob,
                "checksum": None if blob is None else zlib.crc32(blob),
            }
            for key, vector in vectors.items()
            for blob in (None if vector is None else vector.astype(self._stored).tobytes(),)
        ]
        with self._writing() as connection:
            if rows:
                connection.execute(insert(_VECTORS).prefix_with("OR REPLACE"), rows)
            if position is not None:
                connection.execute(
                    _SPACES.update()
                    .where(_SPACES.c.id == space_id, _SPACES.c.position < position)
                    .values(position=position)
                )
        self._bytes_since_checkpoint += sum(len(row["vector"] or b"") for row in rows)

    def hashes(self) -> set[bytes]:
        """Return the hashes of all texts that are known in any space."""
        with self._reading() as connection:
            return set(connection.execute(select(_VECTORS.c.text_hash).distinct()).scalars())

    def remove(self, hashes: Collection[bytes]) -> int:
        """Remove the vectors of texts in every space; return how many that were."""
        removed = 0
        wanted = sorted(hashes)
        for start in range(0, len(wanted), _LOOKUP_MAX):
            with self._writing() as connection:
                part = delete(_VECTORS).where(_VECTORS.c.text_hash.in_(wanted[start : start + _LOOKUP_MAX]))
                removed += connection.execute(part).rowcount
        return removed

    def scrub(self) -> bool:
        """Leave nothing of what was removed in the file and its WAL; False when readers kept that from happening."""
        with self._writer.connect() as connection:
            return until_emptied(lambda: truncate_wal(connection))

    def position(self, space_id: int) -> int:
        """Return the ledger position up to which every text has been embedded."""
        with self._reading() as connection:
            found = connection.execute(select(_SPACES.c.position).where(_SPACES.c.id == space_id)).scalar_one_or_none()
        if found is None:  # whoever asks has just been told this number
            raise IndexUnavailable(
                f"{self._path.name} is broken: stop the service and delete it; what it held is embedded again"
            )
        return int(found)

    def forget_positions(self) -> None:
        """Let every space read the ledger from its beginning again: it is another ledger. Vectors stay."""
        with self._writing() as connection:
            connection.execute(_SPACES.update().values(position=0))

    def _decode(self, space_id: int, blob: bytes | None) -> Cached:
        if blob is None:
            return None
        dtype = np.float16 if len(blob) == 2 * self._dimensions(space_id) else np.float32
        return np.frombuffer(blob, dtype=dtype).astype(np.float32)

    def _dimensions(self, space_id: int) -> int:
        if space_id not in self._dimensions_of:
            with self._reading() as connection:
                rows = connection.execute(select(_SPACES.c.id, _SPACES.c.dimensions)).all()
            self._dimensions_of = {row.id: row.dimensions for row in rows}
        return self._dimensions_of[space_id]

    def spaces(self) -> list[tuple[int, EmbeddingSpace]]:
        """Return every space that vectors were ever kept of, with its number, the oldest first."""
        with self._reading() as connection:
            rows = connection.execute(select(_SPACES).order_by(_SPACES.c.id)).all()
        return [(row.id, EmbeddingSpace(row.model, row.dimensions, row.passage_prefix)) for row in rows]

    def hashes_after(self, space_id: int, key: bytes, limit: int) -> list[tuple[bytes, int]]:
        """Return at most ``limit`` hashes of texts behind ``key``, in order, and the bytes of each one's vector."""
        query = (
            select(_VECTORS.c.text_hash, func.coalesce(func.length(_VECTORS.c.vector), 0))
            .where(_VECTORS.c.space_id == space_id, _VECTORS.c.text_hash > key)
            .order_by(_VECTORS.c.text_hash)
            .limit(limit)
        )
        with self._reading() as connection:
            return [(row[0], row[1]) for row in connection.execute(query).all()]

    def size(self, space_id: int) -> tuple[int, int]:
        """Return how many vectors of a space are kept, and their bytes."""
        query = select(func.count(_VECTORS.c.vector), func.coalesce(func.sum(func.length(_VECTORS.c.vector)), 0))
        with self._reading() as connection:
            row = connection.execute(query.where(_VECTORS.c.space_id == space_id)).one()
        return int(row[0]), int(row[1])

    def forget(self, space_id: int, hashes: Sequence[bytes]) -> None:
        """Delete the vectors of some texts. They are embedded again where one of them comes back."""
        with self._writing() as connection:
            for start in range(0, len(hashes), _LOOKUP_MAX):
                part = list(hashes[start : start + _LOOKUP_MAX])
                connection.execute(
                    delete(_VECTORS).where(_VECTORS.c.space_id == space_id, _VECTORS.c.text_hash.in_(part))
                )

    def begin_again(self, space_id: int) -> None:
        """Take back the position of a space: nothing of it counts as embedded any more.

        Its number stays, since a running service may know it.
        """
        with self._writing() as connection:
            connection.execute(_SPACES.update().where(_SPACES.c.id == space_id).values(position=0))

    def release(self) -> None:
        """Give the pages of deleted vectors back to the file system, in small steps that let others write between.

        A file that was made before this was prepared for keeps them and fills them with new vectors.
        """
        with self._writer.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            while True:
                before = raw.execute("PRAGMA freelist_count").fetchone()[0]
                raw.execute(f"PRAGMA incremental_vacuum({_PAGES_PER_RELEASE})").fetchall()
                if raw.execute("PRAGMA freelist_count").fetchone()[0] >= before:
                    break
            checkpoint(connection, truncate=True)

    def checkpoint(self) -> None:
        """Copy the WAL into the database file where enough has gathered. For the background: it waits for the disk."""
        if self._bytes_since_checkpoint >= _CHECKPOINT_BYTES:
            with self._writer.connect() as connection:
                checkpoint(connection)
            self._bytes_since_checkpoint = 0
