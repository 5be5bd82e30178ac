"""A prompt is made again word for word from ids and positions, whatever was shown, and a changed one shows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.events import (
    CandidateFound,
    Event,
    MemoryEdited,
    MemoryForgotten,
    Payload,
    PromptReport,
    RetrievalRecorded,
    TurnRecorded,
)
from domain.memory import Memory
from domain.prompt import LAYOUT, LAYOUTS, BuiltPrompt, asked_alone, build_prompt, fit_window, laid_out, messages_hash
from domain.prompt_reconstruction import memories_as_shown, memories_named, memory_from, reconstructed_prompt
from domain.temporal.zones import zone_named
from tests.ledgers import START, summary_of, turn
from tests.memories import memory, some_memories

SYSTEM = "Be kind."


def event(position: int, payload: Payload, event_id: str) -> Event:
    return Event(position, event_id, "u", "c", 1, START, None, None, payload)


def count(text: str) -> int:
    return len(text.split()) + 1


def build(window: list[Memory], replay: list[Memory], summarised: list[Memory], client_system: str) -> BuiltPrompt:
    return build_prompt(
        system=SYSTEM,
        client_system=client_system,
        window=fit_window(window, turn(1, "Who?").ts, 200, count),
        replay=replay,
        summarised=summarised,
        asked=asked_alone("Who?"),
        asked_at=turn(1, "Who?").ts,
        budget_tokens=220,
        count=count,
    )


def recorded(built: BuiltPrompt, client_system: str | None) -> TurnRecorded:
    return turn(1, "Who?").model_copy(
        update={
            "window": tuple(item.memory_id for item in built.window),
            "replayed": tuple(item.memory_id for item in built.replayed),
            "summarised": tuple(item.memory_id for item in built.summarised),
            "client_system": client_system,
            "prompt": PromptReport(
                layout=LAYOUT,
                system_version="1",
                budget_tokens=220,
                tokens=built.tokens,
                counted="estimate",
                left_out=built.left_out,
                shares=built.shares,
                shortened=built.shortened,
                messages_hash=messages_hash(built.messages),
            ),
        }
    )


@given(
    some_memories(12), st.integers(0, 12), st.integers(0, 12), st.sampled_from(["", "Speak French.", " \n Antworte. "])
)
def test_it_is_rebuilt_from_what_was_shown(memories: list[Memory], one: int, other: int, client_system: str) -> None:
    first, second = sorted((one, other))
    window = sorted(memories[:first], key=lambda item: item.position)
    built = build(window, memories[first:second], memories[second:], client_system)
    again = reconstructed_prompt(
        recorded(built, client_system), SYSTEM, {item.memory_id: item for item in memories}, {}
    )
    assert again.messages == built.messages
    assert again.proof == "same_as_sent"


@pytest.mark.parametrize(
    ("layout", "timezone"), [(LAYOUT, "Asia/Tokyo"), (LAYOUT, "UTC+05:30"), *((layout, "UTC") for layout in LAYOUTS)]
)
def test_a_prompt_of_any_layout_is_rebuilt_with_its_days(layout: str, timezone: str) -> None:
    asked = turn(1, "Who?")
    parts: Any = {"window": [memory(0)], "replay": [memory(2)], "summarised": [memory(3, summary="Sum.")]}
    messages = laid_out(
        **parts,
        system=SYSTEM,
        client_system="",
        neighbors=[],
        asked=asked_alone("Who?"),
        asked_at=asked.ts.astimezone(zone_named(timezone)),
        layout=layout,
    )
    said = recorded(build(parts["window"], parts["replay"], parts["summarised"], ""), "")
    assert said.prompt is not None
    report = said.prompt.model_copy(
        update={"layout": layout, "timezone": timezone, "messages_hash": messages_hash(messages)}
    )
    known = {item.memory_id: item for found in parts.values() for item in found}
    again = reconstructed_prompt(said.model_copy(update={"prompt": report}), SYSTEM, known, {})
    assert (again.proof, again.messages) == ("same_as_sent", messages)
    # Without a zone, as before it was recorded, days are UTC's.
    before = PromptReport.model_validate(report.model_dump(exclude={"timezone"}))
    assert before.timezone == "UTC"
    lost = report.model_copy(update={"timezone": "Mars/Olympus"})
    assert reconstructed_prompt(said.model_copy(update={"prompt": lost}), SYSTEM, known, {}).proof == "not_possible"


def test_a_change_of_any_part_is_noticed() -> None:
    built = build([memory(1)], [memory(2)], [memory(3, summary="Sum.")], "")
    said = recorded(built, "")
    known = {item.memory_id: item for item in (memory(1), memory(2), memory(3, summary="Sum."))}
    assert reconstructed_prompt(said, SYSTEM, known, {}).proof == "same_as_sent"
    assert reconstructed_prompt(said, "Be rude.", known, {}).proof == "differs"
    assert reconstructed_prompt(said, SYSTEM, known | {"m3": memory(3, summary="Other.")}, {}).proof == "differs"
    assert reconstructed_prompt(said, SYSTEM, known | {"m1": memory(1, user="Else.")}, {}).proof == "differs"
    assert reconstructed_prompt(said.model_copy(update={"client_system": "Hm."}), SYSTEM, known, {}).proof == "differs"


def test_what_the_ledger_lacks_is_named() -> None:
    said = recorded(build([memory(1)], [], [], ""), "")
    lost = reconstructed_prompt(said, SYSTEM, {}, {})
    assert (lost.proof, lost.messages) == ("not_possible", [])
    assert "1 of the 1 memories" in lost.note
    assert reconstructed_prompt(said, None, {"m1": memory(1)}, {}).proof == "not_possible"
    assert reconstructed_prompt(said.model_copy(update={"prompt": None}), SYSTEM, {}, {}).proof == "not_possible"
    assert said.prompt is not None
    no_hash = said.model_copy(update={"prompt": said.prompt.model_copy(update={"messages_hash": None})})
    assert reconstructed_prompt(no_hash, SYSTEM, {"m1": memory(1)}, {}).proof == "unproven"


def candidate(memory_id: str, summary_position: int | None) -> CandidateFound:
    return CandidateFound(
        memory_id=memory_id,
        turn_position=1,
        conversation_id="c",
        turn_id=1,
        score=1.0,
        rank=1,
        dense_score=1.0,
        dense_rank=1,
        matched="exchange",
        summary_position=summary_position,
    )


def test_each_memory_has_the_summary_it_was_shown_with() -> None:
    turns = {name: event(at, turn(1), name) for at, name in enumerate(("m1", "m2", "m3"), start=1)}
    said = {
        7: event(7, summary_of("m1", text="First."), "s1"),
        8: event(8, MemoryEdited(memory_id="m2", turn_id=1, summary="By hand."), "s2"),
    }
    shown = memories_as_shown([candidate("m1", 7), candidate("m2", 8), candidate("m3", None)], turns, said)
    assert {name: item.summary for name, item in shown.items()} == {"m1": "First.", "m2": "By hand.", "m3": None}
    assert shown["m1"].summary_position == 7


def test_a_summary_of_another_memory_is_ignored() -> None:
    made = memory_from(event(1, turn(1), "m1"), event(2, summary_of("m2"), "s"))
    assert made is not None
    assert made.summary is None
    assert memory_from(event(1, MemoryForgotten(memory_id="m1", turn_id=1), "x")) is None


def test_all_memories_of_an_answer_are_named_once() -> None:
    asked = RetrievalRecorded(
        query="?", knobs={}, window=("a", "b"), outcome="ok", candidates=(candidate("b", None), candidate("c", None))
    )
    said = turn(1).model_copy(update={"window": ("a",), "replayed": ("c",), "summarised": ("d",), "neighbours": ("e",)})
    assert memories_named(said, asked) == ["a", "b", "c", "d", "e"]
    assert memories_named(None, None) == []
