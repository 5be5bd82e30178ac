"""The turns beside a replayed one: what was said just before and just after it, in its own conversation. Pure.

An exchange found by its words often leans on the ones around it ("that one", "yes, on Tuesday"). Nobody judged these
neighbors, so they yield to everything that was: none is shown twice, none that the recent window shows, and a note of
a turn that comes along as a neighbor is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.memory import Memory
from domain.retrieval import shown_by


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A memory that came along, and the id of the replayed one beside which it stands."""

    memory: Memory
    of: str


def neighbors_of(
    replay: Sequence[Memory], around: Sequence[Memory], window: Sequence[Memory], reach: int
) -> list[Neighbor]:
    """Return which of the turns ``around`` the replayed ones come along, those of the best memory first.

    ``replay`` is best first, ``reach`` how many turns on each side count. Of one memory's neighbors the nearest come
    first, and of two equally near the earlier one. What stands beside two replayed memories belongs to the nearer one,
    or else to the better.
    """
    replayed = {memory.memory_id for memory in replay}
    conversations = {memory.conversation_id for memory in replay}
    in_window = shown_by(window)
    found: list[tuple[int, int, int, Neighbor]] = []
    for memory in {memory.memory_id: memory for memory in around}.values():
        other = nearest(memory, replay) if memory.conversation_id in conversations else None
        if other is None or (distance := abs(memory.turn_id - other.turn_id)) > reach:
            continue
        if memory.memory_id not in replayed and in_window(memory) is None:
            found.append((replay.index(other), distance, memory.turn_id, Neighbor(memory, other.memory_id)))
    return [neighbor for *_, neighbor in sorted(found, key=lambda item: item[:3])]


def nearest(memory: Memory, replay: Sequence[Memory]) -> Memory | None:
    """Return the replayed memory of the same conversation that is fewest turns away; of two as near, the better."""
    beside = [other for other in replay if other.conversation_id == memory.conversation_id]
    return min(beside, key=lambda other: abs(memory.turn_id - other.turn_id), default=None)


def placed(memories: Sequence[Memory], replay: Sequence[Memory]) -> list[Neighbor]:
    """Return memories that once came along beside the replayed ones as the neighbors they were."""
    found = [(memory, nearest(memory, replay)) for memory in memories]
    return [Neighbor(memory, other.memory_id) for memory, other in found if other is not None]


def blocks(replayed: Sequence[Memory], neighbors: Sequence[Neighbor]) -> list[list[Memory]]:
    """Return replayed memories with their neighbors in the order of their conversations, the oldest block first.

    Memories that follow one another in a conversation are one block, whichever of them was replayed.
    """
    belongs_to = {memory.memory_id: memory.memory_id for memory in replayed}
    belongs_to |= {neighbor.memory.memory_id: neighbor.of for neighbor in neighbors}
    shown = [*replayed, *(neighbor.memory for neighbor in neighbors)]
    made: list[list[Memory]] = []
    for memory in sorted(shown, key=lambda memory: (memory.conversation_id, memory.turn_id)):
        last = made[-1][-1] if made else None
        follows = (
            last is not None
            and last.conversation_id == memory.conversation_id
            and (
                memory.turn_id == last.turn_id + 1
                # A turn in between may be forgotten, or have found no room.
                or belongs_to[memory.memory_id] in {belongs_to[other.memory_id] for other in made[-1]}
            )
        )
        if follows:
            made[-1].append(memory)
        else:
            made.append([memory])
    return sorted(made, key=lambda block: block[0].position)
