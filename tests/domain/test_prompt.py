"""The prompt fits its budget, alternates as templates want it, and leaves out whole items in the promised order."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from domain.memory import Memory
from domain.neighbors import Neighbor, neighbors_of
from domain.prompt import (
    FIRST_LAYOUT,
    FOURTH_LAYOUT,
    LAYOUT,
    NOTES_LAYOUT,
    PREFIX_LAYOUT,
    SECOND_LAYOUT,
    THIRD_LAYOUT,
    BuiltPrompt,
    asked_alone,
    beginning_with_a_block,
    build_prompt,
    fit_window,
    fixed_tokens,
    laid_out,
)
from domain.temporal.zones import zone_named
from tests.ledgers import START
from tests.memories import memory, some_memories


def count(text: str) -> int:
    return len(text.split()) + 1


def build(**given: Any) -> BuiltPrompt:
    usual = {
        "system": "Be kind.",
        "client_system": "",
        "window": [],
        "replay": [],
        "summarised": [],
        "asked": asked_alone("Who?"),
        "asked_at": START,
        "budget_tokens": 10_000,
        "count": count,
    }
    wanted = {**usual, **given}
    fixed = fixed_tokens(wanted["system"], wanted["client_system"], wanted["asked"], wanted["asked_at"], count)
    wanted["window"] = fit_window(wanted["window"], wanted["asked_at"], wanted["budget_tokens"] - fixed, count)
    return build_prompt(**wanted)


PARTS = {
    "window": some_memories(5),
    "replay": some_memories(5),
    "summarised": some_memories(5),
    "budget": st.integers(0, 400),
    "client_system": st.sampled_from(["", "  ", "Speak French."]),
}


@given(**PARTS, layout=st.sampled_from([LAYOUT, NOTES_LAYOUT, PREFIX_LAYOUT]))
def test_it_fits_unless_system_and_question_alone_do_not(
    window: list[Memory], replay: list[Memory], summarised: list[Memory], budget: int, client_system: str, layout: str
) -> None:
    built = build(
        window=window,
        replay=replay,
        summarised=summarised,
        budget_tokens=budget,
        client_system=client_system,
        layout=layout,
    )
    # The newest turn of the window always comes, however short it has to be.
    least = build(window=window[-1:], client_system=client_system, budget_tokens=0).tokens
    assert built.tokens <= max(budget, least)
    assert sum(count(message["content"]) for message in built.messages) <= built.tokens


@given(**PARTS)
def test_one_system_message_then_alternating_turns_and_the_question(
    window: list[Memory], replay: list[Memory], summarised: list[Memory], budget: int, client_system: str
) -> None:
    built = build(
        window=window, replay=replay, summarised=summarised, budget_tokens=budget, client_system=client_system
    )
    turns = len(built.window) + len(built.replayed)
    assert [message["role"] for message in built.messages] == ["system", *["user", "assistant"] * turns, "user"]
    assert built.messages[-1]["content"] == "Who?"
    assert built.messages[0]["content"].startswith("Be kind.")
    assert ("Speak French." in built.messages[0]["content"]) == (client_system == "Speak French.")
    assert all(message["content"] for message in built.messages)


@given(**PARTS)
def test_every_item_is_in_or_reported_as_left_out(
    window: list[Memory], replay: list[Memory], summarised: list[Memory], budget: int, client_system: str
) -> None:
    to_replay = {item.memory_id for item in replay}
    summarised = [item for item in summarised if item.memory_id not in to_replay]
    built = build(
        window=window, replay=replay, summarised=summarised, budget_tokens=budget, client_system=client_system
    )
    as_lines = [item for item in built.summarised if item in replay and item not in summarised]
    in_window = {item.memory_id for item in built.window}
    only_as_memory = {item.memory_id for item in (*built.replayed, *built.summarised)} - in_window
    for part, given_items, kept in (
        # A turn that is shown as a memory need not stand in the window too.
        (
            "window",
            [item for item in window if item.memory_id not in only_as_memory],
            built.window,
        ),
        ("replay", replay, built.replayed),
        ("summary", summarised, [item for item in built.summarised if item not in as_lines]),
    ):
        out = [item.memory_id for item in built.left_out if item.part == part]
        shown = {item.memory_id for item in kept}
        assert sorted([*out, *shown]) == sorted(item.memory_id for item in given_items)
        assert [item.memory_id for item in kept] == [id_ for item in given_items if (id_ := item.memory_id) in shown]
    assert all(item.tokens > 0 for item in built.left_out)


@given(window=some_memories(6), budget=st.integers(0, 300))
def test_the_window_is_kept_from_its_newest_turn_without_a_gap(window: list[Memory], budget: int) -> None:
    built = build(window=window, budget_tokens=budget)
    kept = [item.memory_id for item in window[len(window) - len(built.window) :]]
    assert [item.memory_id for item in built.window] == kept
    assert bool(built.window) == bool(window)


@st.composite
def crowded(draw: st.DrawFn) -> dict[str, Any]:
    """A conversation and memories that want more than there is, in a prompt of an ordinary size."""
    words = st.integers(1, 400).map(lambda words: "word " * words)

    def some(first: int) -> list[Memory]:
        texts = draw(st.lists(st.tuples(words, words), min_size=1, max_size=8))
        return [
            memory(at, user, assistant, summary="It was said." if draw(st.booleans()) else None)
            for at, (user, assistant) in enumerate(texts, first)
        ]

    return {
        "window": some(100),
        "replay": some(10)[: draw(st.integers(0, 5))],
        "summarised": some(50),
        "budget_tokens": draw(st.integers(700, 3000)),
    }


@given(crowded())
def test_window_and_memory_each_have_a_quarter_and_take_what_the_other_leaves(given_parts: dict[str, Any]) -> None:
    built = build(**given_parts)
    budget = given_parts["budget_tokens"]
    rest = budget - built.shares.fixed
    left = budget - built.tokens
    assert left >= 0
    lost_memory = [item for item in built.left_out if item.part in {"replay", "summary"}]
    lost_window = [item for item in built.left_out if item.part == "window"]
    if lost_memory:
        assert built.shares.memory + min(item.tokens for item in lost_memory) > rest / 4
    if lost_window:
        assert built.shares.window + lost_window[0].tokens > rest / 4
        assert left < lost_window[0].tokens


@given(crowded())
def test_every_memory_to_replay_reaches_the_model_where_their_summaries_fit(given_parts: dict[str, Any]) -> None:
    replay = given_parts["replay"]
    built = build(**given_parts)
    shown = {item.memory_id for item in (*built.replayed, *built.summarised)}
    as_lines = build(summarised=replay).shares.memory
    if as_lines <= (given_parts["budget_tokens"] - built.shares.fixed) // 4:
        assert {item.memory_id for item in replay} <= shown


def test_a_newest_turn_that_is_too_long_is_shortened_and_leaves_memory_its_quarter() -> None:
    huge = memory(9, "Begin. " + "word " * 3000 + "End.", "Yes. " + "word " * 3000 + "So be it.")
    built = build(window=[memory(8), huge], replay=[memory(1, "one", "two")], budget_tokens=1000)
    assert built.tokens <= 1000
    assert [item.memory_id for item in built.replayed] == ["m1"]
    assert [item.memory_id for item in built.window][-1] == "m9"
    assert [item.memory_id for item in built.shortened] == ["m9"]
    shown = built.messages[-3]["content"]
    assert shown.startswith(f"[{huge.ts:%Y-%m-%d}] Begin.")
    assert shown.endswith("End.")


def test_an_older_turn_that_is_shown_as_a_memory_is_not_repeated_in_the_window() -> None:
    turns = [memory(number, f"{number} " * 100) for number in range(1, 6)]
    built = build(window=turns, replay=[turns[1]], budget_tokens=len(turns) * 130)
    asked = [message["content"] for message in built.messages if message["role"] == "user"]
    assert len(asked) == len(set(asked))
    assert [item.memory_id for item in built.replayed] == ["m2"]


def test_replay_goes_before_summaries_and_comes_as_a_summary_where_it_does_not_fit() -> None:
    item = [memory(1, "one two three " * 20, "four", summary="Four.")]
    whole = build(replay=item).tokens
    built = build(replay=item, summarised=[memory(3, "x " * 40)], budget_tokens=whole)
    assert ([one.memory_id for one in built.replayed], built.summarised) == (["m1"], [])
    assert [part.part for part in built.left_out] == ["summary"]
    built = build(replay=item, budget_tokens=whole - 1)
    assert (built.replayed, [one.memory_id for one in built.summarised]) == ([], ["m1"])
    assert [part.part for part in built.left_out] == ["replay"]
    assert built.messages[0]["content"].splitlines()[-2].endswith("Four.")


def test_an_exchange_without_a_summary_is_one_bounded_line() -> None:
    said = memory(1, "word " * 1000, "four", summary=None)
    line = build(summarised=[said]).messages[0]["content"].splitlines()[-2]
    assert 300 < len(line) < 450
    parts: dict[str, Any] = {
        "window": [],
        "replay": [],
        "neighbors": [],
        "asked": asked_alone("Who?"),
        "asked_at": START,
    }
    old = laid_out(layout=THIRD_LAYOUT, system="", client_system="", summarised=[said], **parts)
    assert len(old[0]["content"]) > 5000


def test_the_best_replay_is_kept_first_and_a_smaller_one_may_follow() -> None:
    best, huge, small = memory(9, "a b"), memory(1, "x " * 500), memory(5, "c d")
    built = build(replay=[best, huge, small], budget_tokens=build(replay=[best, small]).tokens)
    assert built.replayed == [best, small]
    assert [out.memory_id for out in built.left_out] == ["m1"]
    # Shown in the order of time, whatever their rank.
    shown = [message["content"] for message in built.messages if message["role"] == "user"]
    assert shown == [f"[{small.ts:%Y-%m-%d}] c d", f"[{best.ts:%Y-%m-%d}] a b", "Who?"]


def test_turns_of_the_window_carry_their_dates_too() -> None:
    said = memory(3, "a b", "")
    messages = build(window=[said]).messages
    assert messages[1]["content"] == f"[{said.ts:%Y-%m-%d}] a b"
    assert messages[2]["content"] == "(no text)"


def beside(number: int, of: int, user: str = "x y") -> Neighbor:
    return Neighbor(memory(number, user), f"m{of}")


class TestNeighbors:
    def test_they_are_shown_beside_their_memory_in_conversation_order(self) -> None:
        built = build(replay=[memory(9), memory(5)], neighbors=[beside(10, 9), beside(8, 9), beside(4, 5)])
        shown = [message["content"].partition("] ")[2] for message in built.messages[1:-1:2]]
        assert shown == ["x y", "Remark 5.", "x y", "Remark 9.", "x y"]
        assert [item.memory.turn_id for item in built.neighbors] == [10, 8, 4]
        assert [item.memory_id for item in built.replayed] == ["m9", "m5"]

    def test_they_are_left_out_before_replayed_memories_and_summaries(self) -> None:
        parts: dict[str, Any] = {"replay": [memory(5), memory(20)], "summarised": [memory(30)]}
        room = build(**parts).tokens
        built = build(**parts, neighbors=[beside(4, 5), beside(21, 20)], budget_tokens=room)
        assert [item.memory_id for item in (*built.replayed, *built.summarised)] == ["m5", "m20", "m30"]
        assert [(item.part, item.memory_id) for item in built.left_out] == [("neighbour", "m4"), ("neighbour", "m21")]
        built = build(**parts, neighbors=[beside(4, 5), beside(21, 20)], budget_tokens=room + 30)
        assert [item.memory.memory_id for item in built.neighbors] == ["m4"]

    def test_without_its_memory_no_neighbor_is_shown(self) -> None:
        huge = memory(5, "x " * 500)
        built = build(replay=[huge], neighbors=[beside(4, 5)], budget_tokens=300)
        assert [item.part for item in built.left_out] == ["replay", "neighbour"]
        assert [message["role"] for message in built.messages] == ["system", "user"]

    def test_a_memory_shown_as_a_neighbor_needs_no_summary(self) -> None:
        parts: dict[str, Any] = {"replay": [memory(5)], "summarised": [memory(4, summary="Fourth.")]}
        with_summary = build(**parts)
        built = build(**parts, neighbors=[beside(4, 5)])
        assert (built.summarised, built.left_out) == ([], ())
        assert "What you remember" not in built.messages[0]["content"]
        assert built.tokens == build(replay=[memory(5)], neighbors=[beside(4, 5)]).tokens
        built = build(**parts, neighbors=[beside(4, 5)], budget_tokens=with_summary.tokens)
        assert built.summarised == parts["summarised"]
        assert built.messages == with_summary.messages

    def test_a_summary_without_room_is_not_reported_when_its_memory_is_a_neighbor(self) -> None:
        long_summary = memory(4, "x", summary="word " * 60)
        along = Neighbor(long_summary, "m5")
        room = build(replay=[memory(5)], neighbors=[along]).tokens
        built = build(replay=[memory(5)], summarised=[long_summary], neighbors=[along], budget_tokens=room)
        assert built.neighbors == [along]
        assert (built.summarised, built.left_out) == ([], ())

    @given(replay=some_memories(5), summarised=some_memories(5), around=some_memories(8), budget=st.integers(0, 500))
    def test_it_fits_and_nothing_is_shown_twice_or_lost(
        self, replay: list[Memory], summarised: list[Memory], around: list[Memory], budget: int
    ) -> None:
        replayed = {memory.memory_id for memory in replay}
        summarised = [memory for memory in summarised if memory.memory_id not in replayed]
        neighbors = neighbors_of(replay, around, [], 3)
        built = build(replay=replay, summarised=summarised, neighbors=neighbors, budget_tokens=budget)
        assert built.tokens <= max(budget, build(budget_tokens=budget).tokens)
        assert sum(count(message["content"]) for message in built.messages) <= built.tokens
        came = [item.memory.memory_id for item in built.neighbors]
        shown = [memory.memory_id for memory in (*built.replayed, *built.summarised)] + came
        assert len(shown) == len(set(shown))
        out = {item.memory_id for item in built.left_out}
        given_ids = {memory.memory_id for memory in (*replay, *summarised)} | {
            item.memory.memory_id for item in neighbors
        }
        assert set(shown) | out == given_ids
        assert not set(came) & {item.memory_id for item in built.left_out}


def ended_by(text: str) -> str:
    """The line that its heading says ends what is remembered."""
    found = re.search(r"^What you remember, until the line (end-[0-9a-f]{10}):", text, re.MULTILINE)
    assert found is not None
    return found[1]


@given(**PARTS)
def test_notes_stand_before_the_question_and_choose_the_same_memories_as_turns_do(
    window: list[Memory], replay: list[Memory], summarised: list[Memory], budget: int, client_system: str
) -> None:
    to_replay = {item.memory_id for item in replay}
    parts: dict[str, Any] = {
        "window": window,
        "replay": replay,
        "summarised": [item for item in summarised if item.memory_id not in to_replay],
        "neighbors": [Neighbor(item, of=replay[0].memory_id) for item in some_neighbors(replay)] if replay else [],
        "budget_tokens": budget,
        "client_system": client_system,
    }
    notes, turns = build(**parts, layout=NOTES_LAYOUT), build(**parts)
    for part in ("window", "replayed", "summarised", "neighbors", "left_out", "shares", "shortened"):
        assert getattr(notes, part) == getattr(turns, part)
    roles = [message["role"] for message in notes.messages]
    assert roles == ["system", *["user", "assistant"] * len(notes.window), "user"]
    assert "What you remember" not in notes.messages[0]["content"]
    shown = [*notes.replayed, *notes.summarised, *(item.memory for item in notes.neighbors)]
    heading, *lines = notes.messages[-1]["content"].split("\n- ")
    if not shown:
        assert notes.messages[-1]["content"] == "Who?"
        return
    end = ended_by(heading)
    assert heading == f"What you remember, until the line {end}:"
    assert [line[1:11] for line in lines] == [item.date for item in sorted(shown, key=lambda item: item.position)]
    assert lines[-1].endswith(f"\n{end}\n\nWho?")


def some_neighbors(replay: list[Memory]) -> list[Memory]:
    return [memory(max(item.position for item in replay) + 1000, "Next?", "Yes.")]


def test_notes_hold_exchanges_whole_and_summaries_as_they_are_in_the_order_of_time() -> None:
    built = build(
        layout=NOTES_LAYOUT,
        window=[memory(7, "and now", "")],
        replay=[memory(5, "I moved.\nTo Oslo.", "Nice."), memory(1, "Oh.", "")],
        summarised=[memory(3, summary="Third\nfact.")],
        asked=asked_alone("Where do I live?"),
    )
    end = ended_by(built.messages[-1]["content"])
    assert [message["content"] for message in built.messages] == [
        "Be kind.\n\nToday is 2026-01-02, a Friday.",
        f"[{memory(7).ts:%Y-%m-%d}] and now",
        "(no text)",
        f"What you remember, until the line {end}:\n"
        f"- ({memory(1).ts:%Y-%m-%d}) Oh. — (no text)\n"
        f"- ({memory(3).ts:%Y-%m-%d}) Third fact.\n"
        f"- ({memory(5).ts:%Y-%m-%d}) I moved.\nTo Oslo. — Nice.\n"
        f"{end}\n\nWhere do I live?",
    ]


def test_the_first_layout_can_still_be_built() -> None:
    said, seen = memory(9, "a b", ""), memory(3, "c d")
    messages = laid_out(
        layout=FIRST_LAYOUT,
        system="Be kind.",
        client_system="",
        window=[said],
        replay=[memory(8), seen],
        summarised=[memory(1, summary="First.")],
        neighbors=[],
        asked=asked_alone("Who?"),
        asked_at=START,
    )
    assert [message["content"] for message in messages] == [
        f"Be kind.\n\nWhat you remember:\n- ({memory(1).ts:%Y-%m-%d}) First.",
        f"[{seen.ts:%Y-%m-%d}] c d",
        "Noted.",
        f"[{memory(8).ts:%Y-%m-%d}] Remark 8.",
        "Noted.",
        "a b",
        "(no text)",
        "Who?",
    ]


def test_the_fourth_layout_has_the_days_of_the_question_s_zone() -> None:
    told, summed = memory(1, "a b"), memory(2, summary="Sum.")
    parts: Any = {
        "system": "Be kind.",
        "client_system": "",
        "window": [],
        "replay": [told],
        "summarised": [summed],
        "neighbors": [],
        "asked": asked_alone("Who?"),
        # The evening of the 2nd, in UTC the 3rd already.
        "asked_at": (told.ts + timedelta(hours=1)).astimezone(zone_named("America/New_York")),
    }
    assert [message["content"] for message in laid_out(**parts, layout=FOURTH_LAYOUT)][:2] == [
        "Be kind.\n\nToday is 2026-01-02, a Friday.\n\nWhat you remember:\n- (2026-01-03) Sum.",
        "[2026-01-02 22:04] a b",
    ]
    parts["asked_at"] = parts["asked_at"].astimezone(UTC)
    assert [message["content"] for message in laid_out(**parts, layout=THIRD_LAYOUT)][:2] == [
        "Be kind.\n\nToday is 2026-01-03, a Saturday.\n\nWhat you remember:\n- (2026-01-04) Sum.",
        "[2026-01-03] a b",
    ]


def test_the_third_layout_names_the_day_of_the_question() -> None:
    given_texts: Any = {
        "system": "Be kind.",
        "client_system": "Speak French.",
        "asked": asked_alone("Who?"),
        "asked_at": START,
    }
    nothing: Any = {"window": [], "replay": [], "summarised": [], "neighbors": []}
    assert laid_out(**given_texts, **nothing)[0]["content"] == (
        "Be kind.\n\nToday is 2026-01-02, a Friday.\n\nSpeak French."
    )
    assert laid_out(**given_texts, **nothing, layout=SECOND_LAYOUT)[0]["content"] == "Be kind.\n\nSpeak French."


def test_summaries_stand_in_the_system_message_one_line_each() -> None:
    built = build(summarised=[memory(3, summary="Third\nfact."), memory(1, summary="First fact.")])
    said = built.messages[0]["content"]
    assert said.splitlines()[-4:] == [
        f"What you remember, until the line {ended_by(said)}:",
        f"- ({memory(1).ts:%Y-%m-%d}) First fact.",
        f"- ({memory(3).ts:%Y-%m-%d}) Third fact.",
        ended_by(said),
    ]


def test_prompts_of_the_prefix_layout_begin_alike() -> None:
    """Over twelve turns only what stands after the window changes, but for one turn at which a block falls away."""
    turns = [memory(number, f"Remark {number}.") for number in range(1, 13)]
    beginnings = []
    for newest in range(6, 13):
        shown = beginning_with_a_block(turns[:newest], 5)
        built = build_prompt(
            system="Be kind.",
            client_system="",
            window=fit_window(shown, START, 5_000, count, 5),
            replay=[memory(40 + newest)],
            summarised=[memory(60 + newest, summary="Sum.")],
            asked=asked_alone("Who?"),
            asked_at=START,
            budget_tokens=10_000,
            count=count,
            layout=PREFIX_LAYOUT,
        )
        assert built.messages[0] == {"role": "system", "content": "Be kind."}
        said = built.messages[-1]["content"]
        beginning = f"Today is 2026-01-02, a Friday.\n\nWhat you remember, until the line {ended_by(said)}:\n- ("
        assert said.startswith(beginning)
        assert built.messages[-1]["content"].endswith("\n\nWho?")
        assert 5 <= len(built.window) < 10
        beginnings.append(built.messages[:-1])
    changed = [one for one, other in itertools.pairwise(beginnings) if other[: len(one)] != one]
    assert len(changed) == 1


@given(some_memories(12), st.integers(0, 300), st.integers(1, 6))
def test_a_window_cut_in_blocks_begins_with_one(window: list[Memory], rest: int, block: int) -> None:
    window = sorted(window, key=lambda item: item.position)
    fitted = fit_window(window, START, rest, count, block)
    assert [*fitted.older, *fitted.shown] == window
    first = fitted.shown[0] if len(fitted.shown) > 1 else None
    assert first is None or (isinstance(first, Memory) and (first.turn_id - 1) % block == 0)
