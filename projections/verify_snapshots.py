"""The indices against the ledger: every snapshot is whole, and stands for an event that this ledger has.

A snapshot is built again from the ledger wherever it does not pass, so a finding here is a matter of time, not of data.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from domain.errors import IndexCorrupt
from domain.identity import file_name
from domain.reader import LedgerReader
from domain.verification import Finding
from projections.embedding_client import EmbeddingSpace
from projections.index_files import IndexFiles, Manifest

_PAGE_USERS = 500


def verified_snapshots(reader: LedgerReader, users_dir: Path) -> Iterator[Finding]:
    """Yield what is wrong with the snapshots of all users, in every embedding space that has one."""
    known: set[str] = set()
    last = ""
    while users := reader.users_after(last, _PAGE_USERS):
        for user_id in users:
            known.add(file_name(user_id))
            for manifest_path in sorted((users_dir / file_name(user_id) / "index").glob("*/manifest.json")):
                what = _what_is_wrong(reader, users_dir, user_id, manifest_path)
                if what is not None:
                    yield Finding("index", what, path=str(manifest_path.parent.relative_to(users_dir.parent)))
        last = users[-1]
    for folder in sorted(users_dir.glob("*/index")):
        if folder.parent.name not in known:
            what = "no user of the ledger has this index: delete it"
            yield Finding("index", what, path=str(folder.relative_to(users_dir.parent)))


def _what_is_wrong(reader: LedgerReader, users_dir: Path, user_id: str, manifest_path: Path) -> str | None:
    """Say what is wrong with one snapshot, None when nothing is, or when it was replaced while it was looked at."""
    try:
        content = manifest_path.read_bytes()
        manifest = Manifest.model_validate_json(content)
    except (ValueError, OSError) as error:
        return f"manifest.json cannot be read ({type(error).__name__}): the index is built again"
    space = EmbeddingSpace(manifest.model, manifest.dimensions, manifest.passage_prefix)
    files = IndexFiles(users_dir, user_id, space)
    if files.folder != manifest_path.parent:
        return f"it lies in the folder of another embedding space than {manifest.model!r}"
    if not reader.is_anchor(user_id, manifest.position, manifest.anchor):
        return f"it stands for position {manifest.position} of another ledger or user: it is built again"
    try:
        files.load(manifest)
    except IndexCorrupt as error:
        if manifest_path.exists() and manifest_path.read_bytes() != content:
            return None
        return f"{error}: it is built again"
    return None
