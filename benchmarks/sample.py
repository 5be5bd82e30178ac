"""A sample of a data set's questions that every kind of question has its share in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")


def spread(items: Sequence[T], limit: int | None, kind: Callable[[T], Hashable]) -> list[T]:
    """Return at most ``limit`` items in their order, evenly spread and the same number of each kind.

    Kinds with too few items leave their places to the others. The sample is always the same; None is no limit.
    """
    if limit is None or limit >= len(items):
        return list(items)
    of_kind: dict[Hashable, list[int]] = {}
    for at, item in enumerate(items):
        of_kind.setdefault(kind(item), []).append(at)
    chosen: list[int] = []
    smallest_first = sorted(of_kind.values(), key=len)
    for done, places in enumerate(smallest_first):
        wanted = min(len(places), (limit - len(chosen)) // (len(smallest_first) - done))
        chosen += [places[(2 * at + 1) * len(places) // (2 * wanted)] for at in range(wanted)]
    return [items[at] for at in sorted(chosen)]
