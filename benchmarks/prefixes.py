"""How much of each prompt an endpoint that caches prefixes need not read again, by layout and kind of client.

    python -m benchmarks.prefixes [--turns 40]

A conversation of 40 turns, each told something and asked for something of before, over 200 memories of other
conversations. The client sends its new message alone, or all its history. "shared" is the share of all prompts' tokens
with which a prompt begins as the one before, as the ledger has it; "replayed" the memories shown whole.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.events import TurnRecorded
from tests.service.running import Running, running
from tests.upstream import ScriptedUpstream

LAYOUTS = ("turns", "notes", "prefix_cache")
_THINGS = ("cat", "dog", "bike", "boat", "garden", "piano", "teapot", "ladder", "window", "carpet", "camera", "violin")
_MEMORIES = 200


@dataclass(frozen=True)
class Shared:
    """What the prompts of one conversation came to."""

    tokens: int
    shared: int
    replayed: int


def main() -> None:
    """Print a table, its baseline the layout that replays turns."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prefixes")
    parser.add_argument("--turns", type=int, default=40)
    turns = parser.parse_args().turns
    print("client        layout        prompt tokens  shared  replayed")
    for resends in (False, True):
        for layout in LAYOUTS:
            found = _conversation(layout, turns, resends=resends)
            client = "all history" if resends else "new message"
            print(f"{client}   {layout:12}  {found.tokens:13}  {found.shared / found.tokens:6.1%}  {found.replayed:8}")


def _conversation(layout: str, turns: int, *, resends: bool) -> Shared:
    with (
        tempfile.TemporaryDirectory() as folder,
        ScriptedUpstream() as upstream,
        running(upstream, Path(folder), replay_as=layout, gate="off", use_rerank_default=False) as service,
    ):
        service.tell_all([_fact(number) for number in range(_MEMORIES)], "ann", "before")
        service.settle()
        return _talk(service, turns, resends=resends)


def _talk(service: Running, turns: int, *, resends: bool) -> Shared:
    messages: list[dict[str, Any]] = []
    tokens = shared = replayed = 0
    for number in range(turns):
        messages.append({"role": "user", "content": f"{_fact(1_000 + number)} What of my {_thing(number * 7)}?"})
        sent = messages if resends else messages[-1:]
        answer = service.client.post({"messages": sent, "user": "ann", "metadata": {"conversation_id": "now"}})
        messages.append({"role": "assistant", "content": answer.text})
        turn = service.ledger.one(TurnRecorded, answer)
        assert turn.prompt is not None
        tokens += turn.prompt.tokens
        shared += turn.prompt.shared_tokens or 0
        replayed += len(turn.replayed)
    return Shared(tokens, shared, replayed)


def _thing(number: int) -> str:
    return _THINGS[number % len(_THINGS)]


def _fact(number: int) -> str:
    return f"My {_thing(number)} number {number} stands in room {number * 37 % 101}, and I like how it looks there."


if __name__ == "__main__":
    main()
