"""How often Python looks for garbage: by default after every 700 objects, which suits programs that keep few."""

from __future__ import annotations

import gc


def look_rarely(allocations: int) -> None:
    """Look for garbage once in ``allocations`` new objects, and no more among what was imported until now.

    What nobody refers to any more is freed at once all the same: the search is for objects that refer to each other.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(allocations)
