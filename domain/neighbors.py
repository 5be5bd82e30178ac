"""Neighbors: the turns just before and just after a replayed one, in the same conversation. Pure.

An exchange often refers to the ones around it ("that one", "yes, on Tuesday"). Gate and rerank do not judge neighbors,
so neighbors come last in the prompt's budget. No memory is shown twice, and none that the recent window shows or that
only repeats a newer one (see :mod:`domain.repeats`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.client_messages import WindowTurn
from domain.memory import Memory
from domain.repeats import repeats
from domain.retrieval import shown_by


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A memory shown beside a replayed one, and the id of that one."""

    memory: Memory
    of: str


def neighbors_of(
    replay: Sequence[Memory], around: Sequence[Memory], window: Sequence[WindowTurn], reach: int
) -> list[Neighbor]:
    """Return the neighbors among the turns ``around`` the replayed ones, those of the best memory first.

    ``replay`` is best first; ``reach`` is how many turns on each side count. Among one memory's neighbors the nearest
    comes first, then the earlier. A turn beside two replayed memories belongs to the nearer, then to the better.
    """
    replayed = {memory.memory_id for memory in replay}
    conversations = {memory.conversation_id for memory in replay}
    in_window = shown_by(window)
    beside = {memory.memory_id: memory for memory in around}
    repeated = repeats("", list({memory.memory_id: memory for memory in (*around, *replay)}.values()))
    found: list[tuple[int, int, int, Neighbor]] = []
    for memory in beside.values():
        other = nearest(memory, replay) if memory.conversation_id in conversations else None
        if other is None or (distance := abs(memory.turn_id - other.turn_id)) > reach:
            continue
        if memory.memory_id not in replayed and memory.position not in repeated and in_window(memory) is None:
            found.append((replay.index(other), distance, memory.turn_id, Neighbor(memory, other.memory_id)))
    return [neighbor for *_, neighbor in sorted(found, key=lambda item: item[:3])]


def nearest(memory: Memory, replay: Sequence[Memory]) -> Memory | None:
    """Return the replayed memory of the same conversation the fewest turns away; of two equally near, the better."""
    beside = [other for other in replay if other.conversation_id == memory.conversation_id]
    return min(beside, key=lambda other: abs(memory.turn_id - other.turn_id), default=None)


def placed(memories: Sequence[Memory], replay: Sequence[Memory]) -> list[Neighbor]:
    """Return recorded neighbors, each with the replayed memory it belongs to."""
    found = [(memory, nearest(memory, replay)) for memory in memories]
    return [Neighbor(memory, other.memory_id) for memory, other in found if other is not None]


def blocks(replayed: Sequence[Memory], neighbors: Sequence[Neighbor]) -> list[list[Memory]]:
    """Return replayed memories with their neighbors, each block in conversation order, the oldest block first.

    Consecutive turns of a conversation are one block, whichever of them was replayed.
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
                # A turn in between may be hidden, or did not fit.
                or belongs_to[memory.memory_id] in {belongs_to[other.memory_id] for other in made[-1]}
            )
        )
        if follows:
            made[-1].append(memory)
        else:
            made.append([memory])
    return sorted(made, key=lambda block: block[0].position)
