"""The hash chain, which reveals a changed, removed or swapped event.

Each event's ``hash`` covers its envelope, the hashes of its payload and its identity, and the hash of the event before
it. Texts and ids are covered through *salted* hashes only. So an erasure can blank the text, the ids and the salt: the
chain stays valid, and nobody can confirm a guess at what was there. Every hash names its algorithm.
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
# json.dumps would build an encoder in every call.
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def new_salt() -> str:
    """Return 16 random bytes as 32 hex digits."""
    return secrets.token_hex(_SALT_BYTES)


def canonical(value: Any) -> str:  # any JSON value
    """Return the one JSON text of a value: sorted keys, no whitespace, Unicode as it is.

    Stored payloads have this form, so that the mirror can restore the very text that was hashed.
    """
    return _ENCODER.encode(value)


def digest(text: str) -> str:
    """Return the hash of a text, prefixed with the name of its algorithm."""
    return f"{ALGORITHM}:{hashlib.sha256(text.encode('utf-8')).hexdigest()}"


def identity_hash(salt: str, user_id: str, conversation_id: str) -> str:
    """Hash the ids of the user and conversation that an event belongs to."""
    return digest(canonical([salt, user_id, conversation_id]))


def payload_hash(salt: str, payload_json: str) -> str:
    """Hash a payload as the text that is stored."""
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
    """Hash an event's envelope and, through ``prev_hash``, everything before it."""
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
