"""Two choices of memories are compared as sets, and what moved is told apart from what came and went."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.agreement import Choice, compare, jaccard


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    shown = draw(st.lists(st.sampled_from("abcdefgh"), unique=True))
    at = draw(st.integers(0, len(shown)))
    return Choice(candidates=tuple(shown), replayed=tuple(shown[:at]), summaries=tuple(shown[at:]))


@given(choices())
def test_a_choice_agrees_with_itself(choice: Choice) -> None:
    same = compare(choice, choice)
    assert (same.agreement, same.agreement_replayed, same.exact) == (1.0, 1.0, True)
    assert same.came_in == same.went_out == same.replayed_instead == same.summary_instead == ()


@given(choices(), choices())
def test_what_came_in_goes_out_in_the_reverse_comparison(then: Choice, now: Choice) -> None:
    there, back = compare(then, now), compare(now, then)
    assert there.came_in == back.went_out
    assert there.replayed_instead == tuple(item for item in now.replayed if item in back.summary_instead)
    assert there.agreement == back.agreement
    assert there.exact == back.exact


@given(choices(), choices())
def test_the_changes_turn_one_choice_into_the_other(then: Choice, now: Choice) -> None:
    there = compare(then, now)
    assert (set(then.shown) - set(there.went_out)) | set(there.came_in) == set(now.shown)
    changed = bool(there.came_in or there.went_out or there.replayed_instead or there.summary_instead)
    assert changed is not there.exact


def test_an_agreement_is_the_share_of_what_is_in_both() -> None:
    assert jaccard("abc", "bcd") == 0.5
    assert jaccard("", "") == 1.0
    assert jaccard("a", "") == 0.0
