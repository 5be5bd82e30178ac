"""The hash chain: why a changed, removed or swapped event shows.

Each event's ``hash`` covers its envelope, the hash of its payload and the hash of its identity, and the hash of the
event before it. Texts and ids are covered through *salted* hashes only, so that an erasure can blank the text, the ids
and the salt: the chain stays valid, and nobody can confirm a guess at what stood there. Every hash names its algorithm.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

ALGORITHM = "sha256"
GENESIS = f"{ALGORITHM}:{'0' * 64}"
"""``prev_hash`` of the first event."""
_SALT_BYTES = 16
# Made once: json.dumps would make one for every call, which cost more than the encoding itself.
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def new_salt() -> str:
    """Return 16 random bytes as 32 hex digits."""
    return secrets.token_hex(_SALT_BYTES)


def canonical(value: Any) -> str:  # any JSON value
    """Return the one JSON text of a value: sorted keys, no blanks, Unicode as it is."""
    return _ENCODER.encode(value)


def digest(text: str) -> str:
    """Return the hash of a text, with the name of its algorithm in front."""
    return f"{ALGORITHM}:{hashlib.sha256(text.encode('utf-8')).hexdigest()}"


def identity_hash(salt: str, user_id: str, conversation_id: str) -> str:
    """Hash who an event belongs to."""
    return digest(canonical([salt, user_id, conversation_id]))


def payload_hash(salt: str, payload_json: str) -> str:
    """Hash what an event says, over the very text that is stored."""
    return digest(f"{salt}\n{payload_json}")


def event_hash(
    *,
    prev_hash: str,
    position: int,
    event_id: str,
    version: int,
    event_type: str,
    schema_version: int,
    recorded_at: str,
    correlation_id: str | None,
    causation_id: str | None,
    identity_hash: str,
    payload_hash: str,
) -> str:
    """Hash an event's envelope together with all that came before it."""
    return digest(
        canonical(
            [
                prev_hash,
                position,
                event_id,
                version,
                event_type,
                schema_version,
                recorded_at,
                correlation_id,
                causation_id,
                identity_hash,
                payload_hash,
            ]
        )
    )
