"""Which branch of a tree of messages is the conversation: the one that was shown last.

Asking again and editing a question leave other branches behind. Their messages are counted, not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from domain.errors import InvalidInput

OTHER_BRANCHES = "messages of other branches"
"""How messages that are on no imported branch are counted."""
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def branch_to(where: str, leaf: str, parents: Mapping[str, str | None]) -> list[str]:
    """Return the names from the root of a tree to a leaf.

    ``parents`` gives each node's parent, None for a root. Raises :class:`InvalidInput` that names ``where`` a node is
    that is not there or its own ancestor.
    """
    branch: list[str] = []
    seen: set[str] = set()
    current: str | None = leaf
    while current is not None:
        if current not in parents or current in seen:
            raise InvalidInput(f"{where}: node", current, "name a message of the tree that is not its own ancestor")
        seen.add(current)
        branch.append(current)
        current = parents[current]
    return branch[::-1]


def newest_leaf(parents: Mapping[str, str | None], times: Mapping[str, datetime | None]) -> str | None:
    """Return the leaf with the newest time, the last one of several, None for an empty tree."""
    inner = set(parents.values())
    leaves = [name for name in parents if name not in inner]
    return max(reversed(leaves), key=lambda name: times.get(name) or _LONG_AGO, default=None)
