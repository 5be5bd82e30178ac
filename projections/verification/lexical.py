"""Compares every lexical index with the texts that the ledger gives its user.

An index stands for a position of the ledger and is compared with the ledger as of that position: it reads later events
at the next search. A user without an index gets one then, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from domain.errors import IndexCorrupt, IndexUnavailable
from domain.identity import file_name
from domain.ledger_reader import LedgerReader
from domain.verification import UNREADABLE, Finding, unread
from projections.keys import facet_of, key_of
from projections.lexical.index import Checkpoint, LexicalIndex, entry_text
from projections.lexical.index_files import LEXICAL_NAME, inode_of
from projections.verification.later_texts import keys_said_after

_PAGE_USERS = 500
_EVENTS_PER_READ = 512


def verified_lexical(reader: LedgerReader, users_dir: Path) -> Iterator[Finding]:
    """Yield what is wrong with the lexical indices of all users, at most one finding per user."""
    known: set[str] = set()
    # Listed first: whatever an index holds by now, the ledger has when it is asked.
    present = sorted(users_dir.glob(f"*/{LEXICAL_NAME}"))
    last = ""
    while users := reader.users_after(last, _PAGE_USERS):
        for user_id in users:
            known.add(file_name(user_id))
            try:
                what = lexical_fault(reader, users_dir, user_id)
            except UNREADABLE as error:
                what = f"{unread(error)}: it was not checked"
            if what is not None:
                path = users_dir / file_name(user_id) / LEXICAL_NAME
                yield Finding("index", what, path=str(path.relative_to(users_dir.parent)))
        last = users[-1]
    for path in present:
        if path.parent.name not in known and not _is_empty(path):
            what = "no user of the ledger has this index: delete it"
            yield Finding("index", what, path=str(path.relative_to(users_dir.parent)))


def lexical_fault(reader: LedgerReader, users_dir: Path, user_id: str) -> str | None:
    """Return what is wrong with a user's lexical index, None where it is right or does not exist."""
    path = users_dir / file_name(user_id) / LEXICAL_NAME
    if not path.exists():
        return None
    inode = inode_of(path)
    what = _fault(reader, user_id, path)
    # An index deleted meanwhile, by an erasure or by a service that saw the same, is no finding.
    return what if inode_of(path) == inode else None


def _is_empty(path: Path) -> bool:
    """Tell whether an index holds nothing: a search makes it, also for somebody who has no memory yet."""
    try:
        with closing(LexicalIndex.on_disk(path, create=False)) as index:
            return index.content() == (Checkpoint(0, ""), {})
    except IndexUnavailable:
        return True  # gone, or it cannot be opened now
    except IndexCorrupt:
        return False


def _fault(reader: LedgerReader, user_id: str, path: Path) -> str | None:
    try:
        with closing(LexicalIndex.on_disk(path, create=False)) as index:
            read, found = index.content()
    except IndexUnavailable as error:
        return f"{error}: it was not checked"
    except IndexCorrupt as error:
        return f"{error}: delete it, and it is made again"
    if read.position and not reader.is_anchor(user_id, read.position, read.anchor):
        return f"it stands for position {read.position} of another ledger or user: delete it, and it is made again"
    expected = _expected(reader, user_id, read.position)
    what = _difference(expected, found, set())
    if what is None:
        return None
    return _difference(expected, found, keys_said_after(reader, user_id, read.position))


def _expected(reader: LedgerReader, user_id: str, position: int) -> dict[int, str]:
    """Return the texts by key that were to be indexed at a position."""
    expected: dict[int, str] = {}
    after, read_to = -1, 0
    while read_to != after:
        after = read_to
        changes, read_to = reader.facet_texts(user_id, after, _EVENTS_PER_READ, as_of=position)
        for change in changes:
            key, text = key_of(change.turn_position, change.facet), entry_text(change)
            if text is None:
                expected.pop(key, None)
            else:
                expected[key] = text
    return expected


def _difference(expected: dict[int, str], found: dict[int, str], but: set[int]) -> str | None:
    """Return how the texts found differ from those expected, but for some keys."""
    missing, surplus = expected.keys() - found.keys() - but, found.keys() - expected.keys() - but
    changed = {key for key in expected.keys() & found.keys() - but if expected[key] != found[key]}
    counts = [
        f"{len(keys)} texts {what} (the first is of event {facet_of(min(keys))[0]})"
        for keys, what in ((missing, "are missing"), (surplus, "are surplus"), (changed, "are not the ledger's"))
        if keys
    ]
    return f"{', '.join(counts)}: delete it, and it is made again" if counts else None
