"""The indices against the ledger: every snapshot is whole, of this ledger, and holds what the ledger says it should.

A snapshot is built again from the ledger wherever it does not pass, so a finding here is a matter of time, not of data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from domain.errors import IndexCorrupt
from domain.identity import file_name
from domain.ledger_reader import LedgerReader
from domain.verification import Finding
from projections.dense.index_files import IndexFiles, Manifest
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingSpace
from projections.verification.indices import compared

_PAGE_USERS = 500


def verified_snapshots(reader: LedgerReader, users_dir: Path, cache: VectorCache | None) -> Iterator[Finding]:
    """Yield what is wrong with the snapshots of all users, in every embedding space that has one.

    ``cache`` knows which texts a model has refused, and their vectors: without it less can be told.
    """
    known: set[str] = set()
    last = ""
    while users := reader.users_after(last, _PAGE_USERS):
        for user_id in users:
            known.add(file_name(user_id))
            for manifest_path in sorted((users_dir / file_name(user_id) / "index").glob("*/manifest.json")):
                for what in _what_is_wrong(reader, users_dir, cache, user_id, manifest_path):
                    yield Finding("index", what, path=str(manifest_path.parent.relative_to(users_dir.parent)))
        last = users[-1]
    for folder in sorted(users_dir.glob("*/index")):
        if folder.parent.name not in known:
            what = "no user of the ledger has this index: delete it"
            yield Finding("index", what, path=str(folder.relative_to(users_dir.parent)))


def _what_is_wrong(
    reader: LedgerReader, users_dir: Path, cache: VectorCache | None, user_id: str, manifest_path: Path
) -> Iterator[str]:
    """Say what is wrong with one snapshot; nothing where it was replaced while it was looked at."""
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
    for difference in compared(reader, cache, user_id, manifest, index):
        yield f"{difference.detail}: delete the folder, and it is built again"
