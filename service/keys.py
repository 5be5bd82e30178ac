"""The keys that a running service knows: those of ``API_KEYS``, and those that ``opm keys`` makes and revokes.

The latter stand in the ledger's database, which is looked at every second and not for each request. So a key that was
made, revoked or has expired is known so within seconds, in every process. Which keys were used is noted once a minute.

Once a key was made, one is asked for from then on: a service must not open itself because its keys have expired. Only
where all were revoked and ``ALLOW_ANONYMOUS`` is set does it answer without again.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import NamedTuple

from domain.api_keys import hash_of, note_uses
from domain.errors import LedgerError
from domain.key_reader import StoredKey, UserIs
from domain.ledger import Ledger
from service.settings import ANY_USER, ServiceSettings

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1
_LOOKS_PER_NOTE = 60
_LABEL_SALT = b"openpersistentmemory: label of an API key"


class Caller(NamedTuple):
    """Whom a request's key stands for, one user or any user, and what it may do.

    ``key_label`` is how events name the key, None where no keys are set. ``trusts_headers``: the person may come from a
    header. ``user_is``: what the client means by the ``user`` of a request that is to be answered. ``read_only``: it
    reads and recalls, and nothing is recorded or changed for it.
    """

    owner: str
    key_label: str | None
    trusts_headers: bool = False
    read_only: bool = False
    user_is: UserIs = "person"


ANYBODY = Caller(ANY_USER, None, trusts_headers=True)
"""Who calls where no key is asked for: they may name any user, so a header is worth as much as the body."""


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key as it is compared with what a request brings; ``stored`` where the ledger's database holds it."""

    hash: str
    caller: Caller
    stored: StoredKey | None = None

    def ended(self, now: datetime) -> str | None:
        """Say why the key is good for nothing any more, None where it is."""
        return self.stored.ended(now) if self.stored is not None else None


@cache
def label_of(key: str) -> str:
    """Return the label of a key of ``API_KEYS``, by which the ledger names it.

    Whoever reads labels may try to guess the keys, and people choose short ones: so a guess takes as long as this does,
    some 50 ms, and the result is kept.
    """
    derived = hashlib.scrypt(key.encode(), salt=_LABEL_SALT, n=2**14, r=8, p=1, dklen=4)
    return f"key:{derived.hex()}"


class KeyRing:
    """Knows every key. Making one takes a while for each key of ``API_KEYS``."""

    def __init__(self, ledger: Ledger, settings: ServiceSettings) -> None:
        self._ledger = ledger
        self._may_open = settings.allow_anonymous
        given = {key.get_secret_value(): owner for key, owner in settings.api_keys.items()}
        self._configured = tuple(
            KnownKey(hash_of(key), Caller(owner, label_of(key), trusts_headers=owner == ANY_USER))
            for key, owner in given.items()
        )
        self._made: tuple[KnownKey, ...] = _known(ledger.keys.all())
        self._used: dict[str, datetime] = {}
        self._failing = False
        self._named_nobody: set[str | None] = set()

    @property
    def required(self) -> bool:
        """Whether a request needs a key."""
        if self._configured or not self._made:
            return bool(self._configured)
        all_revoked = all(key.stored is not None and key.stored.revoked_at is not None for key in self._made)
        return not (all_revoked and self._may_open)

    def find(self, given: str) -> KnownKey | None:
        """Return the key that a request brings, None for an unknown one. Takes as long for any."""
        found, wanted = None, hash_of(given)
        for key in (*self._made, *self._configured):
            if secrets.compare_digest(key.hash, wanted):
                found = key
        return found

    def ended(self, key: KnownKey) -> str | None:
        """Say why a key is good for nothing any more, None where it is."""
        return key.ended(self._ledger.clock.now())

    def used(self, key: KnownKey) -> None:
        """Remember that a key is in use, for the next note of that."""
        if key.stored is not None:
            self._used[key.stored.key_id] = self._ledger.clock.now()

    def names_nobody(self, caller: Caller) -> None:
        """Say in the log, once for each key, that people who are not told apart share one memory."""
        if caller.key_label not in self._named_nobody:
            self._named_nobody.add(caller.key_label)
            log.warning(
                "requests%s name no person: whoever sends them shares one memory. If they come from several people, "
                "let the client name each (`user`, or with Open WebUI ENABLE_FORWARD_USER_INFO_HEADERS=true), or give "
                "each a key (`opm keys create --user U`)",
                f" with {caller.key_label}" if caller.key_label is not None else "",
            )

    async def follow(self) -> None:
        """Look for made and revoked keys every second, and note the used ones every minute."""
        for looks in itertools.count(1):
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.look()
            if looks % _LOOKS_PER_NOTE == 0:
                await self.note()

    async def look(self) -> None:
        """Look at the keys in the ledger's database now."""
        try:
            self._made = _known(await asyncio.to_thread(self._ledger.keys.all))
        except LedgerError as error:
            if not self._failing:
                log.warning("the keys could not be read, so those known before count: %s", error)
            self._failing = True
        else:
            self._failing = False

    async def note(self) -> None:
        """Note which keys were used since the last time."""
        uses, self._used = self._used, {}
        if not uses:
            return
        try:
            await asyncio.wrap_future(self._ledger.write(partial(note_uses, uses=uses)))
        except LedgerError as error:
            log.warning("when keys were used could not be noted: %s", error)


def _known(stored: Iterable[StoredKey]) -> tuple[KnownKey, ...]:
    return tuple(
        KnownKey(
            key.key_hash,
            Caller(
                owner=key.user_id if key.user_id is not None else ANY_USER,
                key_label=key.label,
                trusts_headers=key.trust_headers,
                read_only=key.read_only,
                user_is=key.user_is,
            ),
            key,
        )
        for key in stored
    )
