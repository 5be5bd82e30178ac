"""Layout ``system-replay-window-1`` as it was, to make prompts of its time again. Pure, and not to change.

One system message with the chat prompt, the client's own system text and the notes, oldest first; then the replayed
exchanges, oldest first and each with its date; then the recent window, without dates; last the question. It chose
nothing: what had no room is not among what is given.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.memory import Memory

LAYOUT_1 = "system-replay-window-1"


def messages_1(
    *,
    system: str,
    client_system: str,
    window: Sequence[Memory],
    replay: Sequence[Memory],
    notes: Sequence[Memory],
    question: str,
) -> list[dict[str, str]]:
    """Return the messages; ``window`` is oldest first, the others may be in any order."""
    lines = ["\n\n".join(part for part in (system.strip(), client_system.strip()) if part)]
    if notes:
        lines[0] += "\n\nWhat you remember:"
        lines += [f"- ({memory.ts:%Y-%m-%d}) {memory.note}" for memory in _by_age(notes)]
    messages = [{"role": "system", "content": "\n".join(lines)}]
    said = [(f"[{memory.ts:%Y-%m-%d}] {memory.user}", memory.assistant) for memory in _by_age(replay)]
    said += [(turn.user, turn.assistant) for turn in window]
    for user, assistant in said:
        messages.append({"role": "user", "content": user or "(no text)"})
        messages.append({"role": "assistant", "content": assistant or "(no text)"})
    return [*messages, {"role": "user", "content": question}]


def _by_age(memories: Sequence[Memory]) -> list[Memory]:
    return sorted(memories, key=lambda memory: memory.position)
