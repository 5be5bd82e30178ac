"""The service's keys as the ledger's database has them: hashes, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from domain.reader import Reader

UserIs = Literal["person", "conversation"]
"""What a key's client means by the ``user`` of a request."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key that was made here. ``user_id`` is None for one that stands for anybody."""

    key_id: str
    key_hash: str
    name: str
    user_id: str | None
    trust_headers: bool
    read_only: bool
    user_is: UserIs
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    last_used_at: datetime | None

    @property
    def label(self) -> str:
        """What events call the key."""
        return f"key:{self.key_id}"

    def ended(self, now: datetime) -> str | None:
        """Say why the key is good for nothing any more, None where it is."""
        if self.revoked_at is not None:
            return "was revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "has expired"
        return None


class KeyReader(Reader):
    """Reads the keys."""

    def all(self) -> list[StoredKey]:
        """Return every key that was ever made, oldest first."""
        return [
            StoredKey(
                key_id=row.key_id,
                key_hash=row.key_hash,
                name=row.name,
                user_id=row.user_id,
                trust_headers=bool(row.trust_headers),
                read_only=bool(row.read_only),
                user_is="conversation" if row.user_is == "conversation" else "person",
                created_at=datetime.fromisoformat(row.created_at),
                created_by=row.created_by,
                expires_at=_moment(row.expires_at),
                revoked_at=_moment(row.revoked_at),
                revoked_by=row.revoked_by,
                last_used_at=_moment(row.last_used_at),
            )
            for row in self._rows("all_keys")
        ]


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None
