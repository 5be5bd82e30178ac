"""The lexical indices against the ledger: every one holds the words that the ledger gave its user, and no others.

An index stands for a position of the ledger, so it is compared with what was known there: what came later, it reads at
the next question. A user without an index gets one then, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from domain.errors import IndexCorrupt, IndexUnavailable
from domain.identity import file_name
from domain.ledger_reader import LedgerReader
from domain.verification import Finding
from projections.keys import facet_of, key_of
from projections.lexical.index import LexicalIndex, entry_text
from projections.lexical.index_files import LEXICAL_NAME, inode_of

_PAGE_USERS = 500
_EVENTS_PER_READ = 512


def verified_lexical(reader: LedgerReader, users_dir: Path) -> Iterator[Finding]:
    """Yield what is wrong with the lexical indices of all users, at most one finding for each."""
    known: set[str] = set()
    last = ""
    while users := reader.users_after(last, _PAGE_USERS):
        for user_id in users:
            known.add(file_name(user_id))
            what = wrong_words(reader, users_dir, user_id)
            if what is not None:
                path = users_dir / file_name(user_id) / LEXICAL_NAME
                yield Finding("index", what, path=str(path.relative_to(users_dir.parent)))
        last = users[-1]
    for path in sorted(users_dir.glob(f"*/{LEXICAL_NAME}")):
        if path.parent.name not in known:
            what = "no user of the ledger has this index: delete it"
            yield Finding("index", what, path=str(path.relative_to(users_dir.parent)))


def wrong_words(reader: LedgerReader, users_dir: Path, user_id: str) -> str | None:
    """Return what is wrong with a user's lexical index, None where all is well or there is none."""
    path = users_dir / file_name(user_id) / LEXICAL_NAME
    if not path.exists():
        return None
    inode = inode_of(path)
    what = _judged(reader, user_id, path)
    # One that was thrown away meanwhile, by an erasure or by a service that saw the same, is no finding.
    return what if inode_of(path) == inode else None


def _judged(reader: LedgerReader, user_id: str, path: Path) -> str | None:
    try:
        with closing(LexicalIndex.on_disk(path, create=False)) as index:
            read, found = index.content()
    except IndexUnavailable as error:
        return f"{error}: it was not checked"
    except IndexCorrupt as error:
        return f"{error}: delete it, and it is made again"
    if read.position and not reader.is_anchor(user_id, read.position, read.anchor):
        return f"it stands for position {read.position} of another ledger or user: delete it, and it is made again"
    return _difference(_wanted(reader, user_id, read.position), found)


def _wanted(reader: LedgerReader, user_id: str, position: int) -> dict[int, str]:
    """Return the indexed words by key, as they were at ``position``."""
    wanted: dict[int, str] = {}
    after = 0
    while True:
        changes, read_to = reader.facet_texts(user_id, after, _EVENTS_PER_READ, as_of=position)
        for change in changes:
            key, text = key_of(change.turn_position, change.facet), entry_text(change)
            if text is None:
                wanted.pop(key, None)
            else:
                wanted[key] = text
        if read_to == after:
            return wanted
        after = read_to


def _difference(wanted: dict[int, str], found: dict[int, str]) -> str | None:
    missing, surplus = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    changed = {key for key in wanted.keys() & found.keys() if wanted[key] != found[key]}
    counts = [
        f"{len(keys)} texts {what} (the first is of event {facet_of(min(keys))[0]})"
        for keys, what in ((missing, "are missing"), (surplus, "are surplus"), (changed, "are not the ledger's"))
        if keys
    ]
    return f"{', '.join(counts)}: delete it, and it is made again" if counts else None
