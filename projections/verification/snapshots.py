"""Compares every snapshot of a vector index with the ledger, in all embedding spaces.

A service builds a snapshot again when it does not pass, so a finding here costs time and loses no data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from domain.errors import IndexCorrupt
from domain.identity import file_name
from domain.ledger_reader import LedgerReader
from domain.verification import UNREADABLE, Finding, unread
from projections.dense.index_files import IndexFiles, Manifest
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingSpace
from projections.verification.indices import snapshot_differences

_PAGE_USERS = 500


def verified_snapshots(reader: LedgerReader, users_dir: Path, cache: VectorCache | None) -> Iterator[Finding]:
    """Yield what is wrong with the snapshots of all users, in every embedding space that has one.

    ``cache`` knows the vectors and which texts a model refused; without it fewer faults can be found.
    """
    known: set[str] = set()
    # Listed first: whatever an index holds by now, the ledger has when it is asked.
    present = sorted(users_dir.glob("*/index"))
    last = ""
    while users := reader.users_after(last, _PAGE_USERS):
        for user_id in users:
            known.add(file_name(user_id))
            for manifest_path in sorted((users_dir / file_name(user_id) / "index").glob("*/manifest.json")):
                try:
                    faults = list(_faults(reader, users_dir, cache, user_id, manifest_path))
                except UNREADABLE as error:
                    faults = [f"{unread(error)}: it was not checked"]
                for what in faults:
                    yield Finding("index", what, path=str(manifest_path.parent.relative_to(users_dir.parent)))
        last = users[-1]
    for folder in present:
        if folder.parent.name not in known and folder.exists():
            what = "no user of the ledger has this index: delete it"
            yield Finding("index", what, path=str(folder.relative_to(users_dir.parent)))


def _faults(
    reader: LedgerReader, users_dir: Path, cache: VectorCache | None, user_id: str, manifest_path: Path
) -> Iterator[str]:
    """Yield what is wrong with one snapshot; nothing if it was replaced meanwhile."""
    try:
        content = manifest_path.read_bytes()
        manifest = Manifest.model_validate_json(content)
    except (ValueError, OSError) as error:
        yield f"manifest.json cannot be read ({type(error).__name__}): the index is built again"
        return
    space = EmbeddingSpace(manifest.model, manifest.dimensions, manifest.passage_prefix)
    files = IndexFiles(users_dir, user_id, space)
    if files.folder != manifest_path.parent:
        yield f"it lies in the folder of another embedding space than {manifest.model!r}"
        return
    if not reader.is_anchor(user_id, manifest.position, manifest.anchor):
        yield f"it stands for position {manifest.position} of another ledger or user: it is built again"
        return
    try:
        index = files.load(manifest)
    except IndexCorrupt as error:
        if not manifest_path.exists() or manifest_path.read_bytes() == content:
            yield f"{error}: it is built again"
        return
    for difference in snapshot_differences(reader, cache, user_id, manifest, index):
        yield f"{difference.detail}: delete the folder, and it is built again"
