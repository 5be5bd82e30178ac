"""Stories of what changed go through the service, and what is said of the newest statement is counted rightly."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import believed
from benchmarks.believed_stories import DISTRACTORS_EACH, STORIES, Story
from tests.upstream import ScriptedUpstream


def test_the_stories_are_those_that_the_figures_are_about() -> None:
    assert Counter(story.language for story in STORIES) == {"en": 40, "zh": 20}
    assert len({story.name for story in STORIES}) == len(STORIES)


@pytest.mark.parametrize("number", range(len(STORIES)))
def test_a_story_can_be_judged(number: int) -> None:
    story = STORIES[number]
    said = [user for user, _ in believed.exchanges(number, story)]
    assert len(said) == len(set(said)) == len(story.told) + DISTRACTORS_EACH
    told = [user for user, _ in story.told]
    assert [user for user in said if user in told] == told
    assert believed.verdict(story, told[-1]) in {"newest", "both"}
    first_again = len(told) > 2
    assert (believed.verdict(story, told[0]) == "newest") == first_again
    unknown = {"en": "I do not know that.", "zh": "我不知道。"}[story.language]
    assert believed.verdict(story, unknown) == "neither"


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [("In Oslo.", "newest"), ("In rome!", "outdated"), ("In Oslo, before that in Rome.", "both"), ("", "neither")],
)
def test_an_answer_is_held_against_both_statements(answer: str, verdict: str) -> None:
    story = Story("s", "en", (("I live in Rome.", "Ok."), ("I live in Oslo.", "Ok.")), "Where?", ("Oslo",), ("Rome",))
    assert believed.verdict(story, answer) == verdict


def test_conversations_are_a_week_apart() -> None:
    said = believed.history([(f"{number}", "Ok.") for number in range(7)])
    assert Counter(turn.conversation_id for turn in said).most_common(1) == [("conversation 0", 3)]
    assert said == sorted(said, key=lambda turn: turn.ts)
    assert [(turn.ts - said[0].ts).days for turn in said] == [0, 0, 0, 7, 7, 7, 14]


@pytest.mark.parametrize("answer", [True, False])
def test_both_rows_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    with ScriptedUpstream(dims=64) as upstream:
        upstream.say("answer", "Your home is Oslo.")
        named = {"EMB_BASE_URL": upstream.base_url, "EMB_MODEL": upstream.embedding_model}
        if answer:
            named |= {"LLM_BASE_URL": upstream.base_url, "LLM_MODEL": upstream.chat_model}
        for name, value in named.items():
            monkeypatch.setenv(name, value)
        believed.main(["--stories", "2", *(["--answer"] if answer else [])])
        assert len(upstream.calls_of("answer")) == (4 if answer else 0)
    told, before = capsys.readouterr().out.splitlines()
    for row in (told, before):
        assert re.search(r"newest replayed [12] of 2, replayed \d\.\d each", row)
        assert row.endswith("; answered: newest 1, both 0, outdated 0") == answer
