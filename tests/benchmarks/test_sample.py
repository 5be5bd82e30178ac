"""A sample has as many questions of each kind as there are, and comes out the same every time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sample import spread


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(min_value=0, max_value=40))
def test_a_sample_gives_every_kind_its_share(kinds: list[str], limit: int) -> None:
    items = list(enumerate(kinds))
    chosen = spread(items, limit, lambda item: item[1])
    assert len(chosen) == min(limit, len(items))
    assert chosen == sorted(set(chosen))
    counts = Counter(kind for _, kind in chosen)
    unspent = [counts[kind] for kind in set(kinds) if counts[kind] < kinds.count(kind)]
    # Only a kind that is used up, or the remainder of a division, makes a difference.
    assert not unspent or max(counts.values(), default=0) - min(unspent) <= 1


def test_a_sample_comes_from_all_over_its_kind() -> None:
    assert spread(range(100), 4, lambda _: "one kind") == [12, 37, 62, 87]
    assert spread([3, 1, 2], None, lambda _: "one kind") == [3, 1, 2]
