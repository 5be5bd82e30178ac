"""A user's index on disk: one snapshot file and the manifest that says what it is.

A snapshot is written under a new name, then the manifest that names it is replaced atomically: whatever happens in
between, the manifest names a whole file. FAISS would silently load a file with a flipped bit, so the manifest carries a
checksum. It also carries the ledger position that the file stands for and that event's hash, by which a file of another
user, of another ledger or of a truncated ledger is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from domain.errors import IndexCorrupt
from domain.identity import file_name
from domain.ledger_reader import LedgerReader
from projections.dense.snapshot import Storage
from projections.dense.user_index import UserIndex
from projections.durable import fsync_path, replace_durably, write_durably
from projections.embedding.endpoint import EmbeddingSpace

_MANIFEST = "manifest.json"
_FORMAT = 1
_ABANDONED_S = 3600.0


class Manifest(BaseModel):
    """What a snapshot file is. ``anchor`` is the hash of the ledger's event at ``position``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = _FORMAT
    model: str
    dimensions: int
    passage_prefix: str
    storage: Storage
    vectors: int
    position: int = Field(ge=0, le=2**62)
    anchor: str
    file: str = Field(pattern=r"^\d+\.faiss$")
    bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class IndexFiles:
    """The files of one user's index in one embedding space."""

    users_dir: Path
    user_id: str
    space: EmbeddingSpace

    @property
    def folder(self) -> Path:
        space = f"{self.space.model}\n{self.space.dimensions}\n{self.space.passage_prefix}"
        return self.users_dir / file_name(self.user_id) / "index" / file_name(space)

    def manifest(self) -> Manifest | None:
        """Return the manifest, None where there is none; raise :class:`IndexCorrupt` where it cannot be read."""
        path = self.folder / _MANIFEST
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError) as error:
            raise IndexCorrupt(f"{_MANIFEST} cannot be read ({type(error).__name__})") from None

    def open(self, reader: LedgerReader, storage: Storage) -> UserIndex | None:
        """Return what the files hold, None where there is nothing of that ``storage``.

        Raises :class:`IndexCorrupt` when they are broken, or not of this user and ledger.
        """
        manifest = self.manifest()
        while manifest is not None and manifest.storage == storage:
            try:
                self.check_anchor(manifest, reader)
                return self.load(manifest)
            except IndexCorrupt:
                # Another process may have switched to a newer snapshot between the manifest and the file it named.
                read, manifest = manifest, self.manifest()
                if manifest == read:
                    raise
        return None

    def check_anchor(self, manifest: Manifest, reader: LedgerReader) -> None:
        """Raise :class:`IndexCorrupt` unless the ledger has the event that the manifest was written at."""
        if not reader.is_anchor(self.user_id, manifest.position, manifest.anchor):
            raise IndexCorrupt("it is not of this ledger and user")

    def load(self, manifest: Manifest) -> UserIndex:
        """Map the snapshot that ``manifest`` names; raise :class:`IndexCorrupt` when it is not what it should be."""
        path = self.folder / manifest.file
        if (manifest.format, manifest.model, manifest.dimensions, manifest.passage_prefix) != (
            _FORMAT,
            self.space.model,
            self.space.dimensions,
            self.space.passage_prefix,
        ):
            raise IndexCorrupt("the manifest is of another embedding space or format")
        try:
            if path.stat().st_size != manifest.bytes:
                raise IndexCorrupt(f"{manifest.file} has {path.stat().st_size} bytes instead of {manifest.bytes}")
            if _checksum(path) != manifest.checksum:
                raise IndexCorrupt(f"{manifest.file} does not match its checksum")
            snapshot = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except (OSError, RuntimeError) as error:
            raise IndexCorrupt(f"{manifest.file} cannot be read ({type(error).__name__})") from None
        if snapshot.d != manifest.dimensions or snapshot.ntotal != manifest.vectors:
            raise IndexCorrupt(f"{manifest.file} does not hold what its manifest says")
        return UserIndex(manifest.dimensions, manifest.storage, snapshot=snapshot, position=manifest.position)

    def save(self, snapshot: Any, storage: Storage, position: int, anchor: str) -> Manifest:
        """Write a snapshot and switch the manifest to it; return the new manifest.

        A rebuild and a service may both write here: one waits for the other.
        """
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"snapshot.{os.getpid()}.{threading.get_ident()}.tmp"
        faiss.write_index(snapshot, str(temporary))
        manifest = Manifest(
            model=self.space.model,
            dimensions=self.space.dimensions,
            passage_prefix=self.space.passage_prefix,
            storage=storage,
            vectors=snapshot.ntotal,
            position=position,
            anchor=anchor,
            file=f"{position}.faiss",
            bytes=temporary.stat().st_size,
            checksum=_checksum(temporary),
        )
        with _locked(folder):
            for name in (manifest.file, _MANIFEST):
                if (folder / name).is_dir():  # which no rename replaces
                    shutil.rmtree(folder / name)
            replace_durably(temporary, folder / manifest.file)
            write_durably(folder / _MANIFEST, manifest.model_dump_json(indent=2).encode())
            for stale in folder.iterdir():
                # A mapped file stays readable to whoever has it open; a killed process leaves a temporary file.
                if (stale.suffix == ".faiss" and stale.name != manifest.file) or _abandoned(stale):
                    stale.unlink(missing_ok=True)
            fsync_path(folder)
        return manifest

    def remove(self) -> None:
        """Remove these files, and the folders above them up to the user's own that hold nothing else."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in (self.folder.parent, self.folder.parent.parent):
            with contextlib.suppress(OSError):  # something else is in it, or it is gone already
                folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock for switching snapshots in a folder; it ends with the process at the latest."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _abandoned(path: Path) -> bool:
    return path.suffix == ".tmp" and time.time() - path.stat().st_mtime > _ABANDONED_S


def _checksum(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        digest.update(content)
    return f"xxh3_128:{digest.hexdigest()}"
