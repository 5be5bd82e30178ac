"""Told A, later B, asked: is B replayed, and does the model answer B?

    python -m benchmarks.believed
    python -m benchmarks.believed --answer

Each of the stories in :mod:`benchmarks.believed_stories` is recorded for a person of its own, between ten exchanges
about something else, in dated conversations. Then its question is asked of the running service, in a conversation of
its own. The second row is the same with the question asked ten times before, of an assistant that did not know.

Settings are the environment variables of the service. Without an endpoint the embedded models are used, with the
settings of `make run`; a scripted model stands in for the chat model unless ``--answer`` asks for its answers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import httpx2

from benchmarks.answered import served_copy, service_environment
from benchmarks.believed_stories import STORIES, Exchange, Language, Story, distractors_of
from benchmarks.remembered import Said, embedded_models, embedding_settings, remembered
from domain.reasoning import visible
from service.launch.command import EMBEDDED_PROFILE
from tests.upstream import ScriptedUpstream

_ANSWER_S_MAX = 900.0
_SHOWN_CHARS = 400
_FIRST_DAY = datetime(2026, 8, 3, 9, tzinfo=UTC)
_CONVERSATION_TURNS = 3
_ASKED_BEFORE = 10
_UNKNOWN: dict[Language, tuple[str, ...]] = {
    "en": (
        "I don't know that yet.",
        "I'm sorry, I have no information about that. Could you tell me?",
        "You have not told me so far.",
    ),
    "zh": ("我还不知道。", "抱歉，我没有这方面的信息，可以告诉我吗？", "您还没有告诉过我。"),
}

Verdict = Literal["newest", "both", "outdated", "neither"]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a story: where the newest statement was in the replay (from 1), and what was answered."""

    story: Story
    place: int | None
    replayed: tuple[str, ...]
    answer: str

    @property
    def verdict(self) -> Verdict:
        return verdict(self.story, self.answer)


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask all stories and print both rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.believed")
    parser.add_argument("--answer", action="store_true", help="let the chat model answer, and count right answers")
    parser.add_argument("--storage", type=Path, help="keep what is recorded here, for the next run")
    parser.add_argument("--stories", type=int, default=len(STORIES), help="ask only the first so many")
    given = parser.parse_args(arguments)
    stories = STORIES[: given.stories]
    with tempfile.TemporaryDirectory(prefix="believed-") as folder:
        storage = given.storage or Path(folder) / "storage"
        with _environment(answer=given.answer) as environment:
            asyncio.run(_record(storage, environment, stories))
            with served_copy(storage, environment) as (base_url, _):
                told = asyncio.run(_ask_all(base_url, stories, "told"))
                print(_row("told", told, answered=given.answer))
                repeated = asyncio.run(_ask_all(base_url, stories, "asked before"))
                print(_row("asked before", repeated, answered=given.answer))


def exchanges(number: int, story: Story) -> list[Exchange]:
    """Return the story between its distractors: as many before each later statement, the rest at the end."""
    distractors = list(distractors_of(number, story.language))
    between = len(distractors) // len(story.told)
    said: list[Exchange] = []
    for statement in story.told:
        said += [statement, *distractors[:between]]
        del distractors[:between]
    return [*said, *distractors]


def asked_before(story: Story) -> list[Exchange]:
    """Return the story's question as it was asked before, in vain."""
    unknown = _UNKNOWN[story.language]
    return [(story.question, unknown[time % len(unknown)]) for time in range(_ASKED_BEFORE)]


def history(said: Sequence[Exchange]) -> list[Said]:
    """Return exchanges as turns of conversations a week apart."""
    turns = []
    for number, (user, assistant) in enumerate(said):
        week, place = divmod(number, _CONVERSATION_TURNS)
        ts = _FIRST_DAY + timedelta(weeks=week, minutes=3 * place)
        turns.append(Said(f"conversation {week}", ts, user, assistant))
    return turns


def verdict(story: Story, answer: str) -> Verdict:
    """Return which of a story's statements an answer repeats; to be read by a person where it is "both"."""
    said = answer.casefold()
    newest = any(text.casefold() in said for text in story.right)
    outdated = any(text.casefold() in said for text in story.outdated)
    if newest:
        return "both" if outdated else "newest"
    return "outdated" if outdated else "neither"


@contextmanager
def _environment(*, answer: bool) -> Iterator[Mapping[str, str]]:
    if answer:
        with service_environment() as environment:
            yield environment
        return
    with ScriptedUpstream() as chat:
        scripted = {**EMBEDDED_PROFILE, "LLM_BASE_URL": chat.base_url, "LLM_MODEL": chat.chat_model}
        given = embedding_settings(os.environ)
        if "EMB_BASE_URL" in given:
            yield {**scripted, **given}
            return
        with embedded_models(["embeddings"]) as announced:
            yield {**scripted, **announced}


async def _record(storage: Path, environment: Mapping[str, str], stories: Sequence[Story]) -> None:
    async with remembered(storage, embedding_settings(environment)) as memory:
        for number, story in enumerate(stories):
            said = exchanges(number, story)
            await memory.record(_user("told", story), history(said))
            await memory.record(_user("asked before", story), history([*said, *asked_before(story)]))


async def _ask_all(base_url: str, stories: Sequence[Story], kind: str) -> list[Result]:
    results: list[Result] = []
    async with httpx2.AsyncClient(base_url=base_url, timeout=_ANSWER_S_MAX, trust_env=False) as client:
        for story in stories:
            result = await _ask(client, story, _user(kind, story))
            results.append(result)
            _tell(result, kind)
    return results


async def _ask(client: httpx2.AsyncClient, story: Story, user: str) -> Result:
    response = await client.post(
        "/v1/chat/completions",
        json={
            "user": user,
            "temperature": 0,
            "metadata": {"conversation_id": "question"},
            "messages": [{"role": "user", "content": story.question}],
        },
    )
    response.raise_for_status()
    body: dict[str, Any] = response.json()
    if body["memory_status"]["retrieval"] != "ok":
        raise SystemExit(f"memory was not searched: {body['memory_status']}")
    replayed = tuple(memory["raw_user"] for memory in body["retrieved"]["replay"])
    newest, _ = story.told[-1]
    place = replayed.index(newest) + 1 if newest in replayed else None
    return Result(story, place, replayed, visible(body["choices"][0]["message"]["content"]))


def _row(kind: str, results: Sequence[Result], *, answered: bool) -> str:
    found = sum(result.place is not None for result in results)
    shown = sum(len(result.replayed) for result in results) / len(results)
    row = f"{kind:14}newest replayed {found} of {len(results)}, replayed {shown:.1f} each"
    if answered:
        counts = {name: sum(result.verdict == name for result in results) for name in ("newest", "both", "outdated")}
        row += "; answered: " + ", ".join(f"{name} {count}" for name, count in counts.items())
    return row


def _tell(result: Result, kind: str) -> None:
    place = f"at {result.place} of {len(result.replayed)}" if result.place is not None else "NOT replayed"
    line = f"[{kind}] {result.story.name}: {place}, {result.verdict}: {' '.join(result.answer.split())[:_SHOWN_CHARS]}"
    print(line, file=sys.stderr, flush=True)
    if result.place is None:
        print(f"    replayed: {list(result.replayed)}", file=sys.stderr, flush=True)


def _user(kind: str, story: Story) -> str:
    return f"{kind}: {story.name}"


if __name__ == "__main__":
    main()
