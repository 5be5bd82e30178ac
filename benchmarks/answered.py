"""Answers questions through the running service and lets a judge model say which answers are right.

The service is a real process on a copy of the recorded storage. Each question is a request to ``POST
/v1/chat/completions`` in a conversation of its own, so that no earlier question is in its window. Its turn is forgotten
over HTTP once it is answered, so that it is no memory for the next question. This program holds the lock for the copy's
background work and leaves that work undone: no summaries are written, and memory stays as it was recorded. The clock of
the service shows today; a system message says on which day the question is asked.

Settings are the environment variables of the service. Without an endpoint the embedded models answer, with the settings
of `make run`. Do not trust a model of that size as a judge (``--judge-model``).
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.remembered import Said, embedded_models, embedding_settings, remembered
from domain.errors import UpstreamError
from domain.events import GateDecided, JsonObject, RerankDecided, TurnRecorded, Usage
from domain.ledger_reader import LedgerReader
from domain.reasoning import visible
from domain.sqlite import open_engine
from service.chat_client import ChatClient
from service.launch.command import api_environment
from service.settings import ServiceSettings
from tests.processes import ROOT, service_process

_ANSWER_S_MAX = 900.0
_JUDGE_S_MAX = 300.0
_JUDGE_TOKENS_MAX = 512
"""More than a verdict needs, for models that reason first."""
_SHOWN_CHARS = 120
_NOT_OURS = frozenset({"STORAGE_DIR", "API_KEYS", "ALLOWED_HOSTS"})
"""Settings of the operator's service that this one must not take over."""
_JUDGE_SYSTEM = (
    "You grade answers. You are given a question, the correct answer, and the answer to grade. The answer to grade is "
    "correct if it says what the correct answer says: other words, further detail and other ways of writing a date or "
    "a number do no harm. It is not correct if it says something else, leaves out what was asked for, or says that it "
    'does not know. Reply with JSON: {"correct": true} or {"correct": false}.'
)
_VERDICT_FORMAT: JsonObject = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"correct": {"type": "boolean"}},
            "required": ["correct"],
            "additionalProperties": False,
        },
    },
}
_VERDICT = re.compile(r"[\"']correct[\"']\s*:\s*(true|false)", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """A question of a user, the right answer according to the data set, and the day on which it is asked."""

    user_id: str
    text: str
    gold: str
    category: str
    day: date


@dataclass(frozen=True)
class Answered:
    """The result of a question. ``correct`` is None if the judge gave no verdict.

    ``usages`` are the tokens of each chat model call for this answer, if the endpoint reports them; ``retrieval`` is
    the outcome of the memory search (``ok`` or ``degraded``).
    """

    asked: Asked
    text: str
    correct: bool | None
    seconds: float
    retrieval: str
    usages: tuple[Usage, ...]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command-line options of :func:`measure`."""
    parser.add_argument(
        "--answer", action="store_true", help="answer the questions by the service, and judge the answers"
    )
    parser.add_argument("--judge-model", help="who judges (default: the service's chat model)")
    parser.add_argument("--judge-base-url", help="where the judge is served (default: the service's chat endpoint)")


def measure(
    given: argparse.Namespace, storage: Path, histories: Mapping[str, Sequence[Said]], asked: Sequence[Asked]
) -> None:
    """Record the histories (by user) in ``storage``, answer the questions, judge the answers, and print the figures."""
    with service_environment() as environment:
        asyncio.run(_record(storage, environment, histories))
        settings = ServiceSettings(**{name.lower(): value for name, value in environment.items()})  # type: ignore[arg-type]  # checked by pydantic
        judged_by = settings.model_copy(
            update={
                "llm_model": given.judge_model or settings.llm_model,
                "llm_base_url": given.judge_base_url or settings.llm_base_url,
            }
        )
        with served_copy(storage, environment) as served:
            answered = asyncio.run(_answer_all(asked, *served, judged_by))
    print(f"answered by {settings.llm_model} with GATE={settings.gate}, judged by {judged_by.llm_model}")
    print(table(answered))


def table(answered: Sequence[Answered]) -> str:
    """Return the figures of one or more answers: accuracy by category, tokens, seconds, and failures."""
    lines = [f"\n{'':24}{'questions':>10}{'correct':>10}{'accuracy':>10}{'words F1':>10}"]
    categories = list(dict.fromkeys(one.asked.category for one in answered))
    for category in (*sorted(categories), None):
        of_it = [one for one in answered if category in {None, one.asked.category}]
        correct = sum(one.correct is True for one in of_it)
        alike = statistics.fmean(words_f1(one.text, one.asked.gold) for one in of_it)
        lines.append(f"{category or 'all':24}{len(of_it):>10}{correct:>10}{correct / len(of_it):>10.3f}{alike:>10.3f}")
    prompt = statistics.fmean(sum(usage.prompt_tokens for usage in one.usages) for one in answered)
    said = statistics.fmean(sum(usage.completion_tokens for usage in one.usages) for one in answered)
    calls = statistics.fmean(len(one.usages) for one in answered)
    seconds = [one.seconds for one in answered]
    lines += [
        f"\ntokens a question: {prompt:.0f} read and {said:.0f} written in {calls:.1f} calls (gate, rerank, answer)",
        f"seconds a question: {statistics.median(seconds):.1f} (median), {statistics.fmean(seconds):.1f} (mean)",
        f"no answer: {sum(one.retrieval == 'failed' for one in answered)}, memory degraded: "
        f"{sum(one.retrieval == 'degraded' for one in answered)}, "
        f"no verdict (counted as not correct): {sum(one.correct is None for one in answered)}",
    ]
    return "\n".join(lines)


def words_f1(answer: str, gold: str) -> float:
    """Return the F1 (0 to 1) of an answer's words, ignoring articles and order, much as LoCoMo's authors do."""
    said, right = Counter(_words(answer)), Counter(_words(gold))
    shared = (said & right).total()
    return 2 * shared / (said.total() + right.total()) if shared else 0.0


class Judge:
    """A model that decides whether an answer says the same as the data set's."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._chat = ChatClient(settings)

    async def correct(self, asked: Asked, answer: str) -> bool | None:
        """Return the verdict, None if the endpoint gave no readable one."""
        shown = f"Question: {asked.text}\n\nCorrect answer: {asked.gold}\n\nAnswer to grade: {answer}"
        try:
            completion = await self._chat.complete(
                [{"role": "system", "content": _JUDGE_SYSTEM}, {"role": "user", "content": shown}],
                timeout_s=_JUDGE_S_MAX,
                max_tokens=_JUDGE_TOKENS_MAX,
                response_format=_VERDICT_FORMAT,
            )
        except UpstreamError as error:
            _note(f"no verdict: {error}")
            return None
        found = _VERDICT.search(visible(completion.text))
        return found.group(1).lower() == "true" if found is not None else None

    async def close(self) -> None:
        await self._chat.close()


@contextmanager
def service_environment() -> Iterator[dict[str, str]]:
    """Return the environment of the service: that of this program, with the embedded models if no endpoint is named."""
    names = [name.upper() for name in ServiceSettings.model_fields]
    configured = {name: os.environ[name] for name in names if name in os.environ and name not in _NOT_OURS}
    lacking = {"chat": "LLM_BASE_URL", "embeddings": "EMB_BASE_URL"}
    embedded = [model for model, url in lacking.items() if not configured.get(url)]
    if not embedded:
        yield configured
        return
    with embedded_models(embedded) as announced:
        yield configured | api_environment(announced, embedded, configured)


async def _record(storage: Path, environment: Mapping[str, str], histories: Mapping[str, Sequence[Said]]) -> None:
    async with remembered(storage, embedding_settings(environment)) as memory:
        for user_id, said in histories.items():
            await memory.record(user_id, said)
            _note(f"recorded {user_id}: {len(said)} turns")


@contextmanager
def served_copy(storage: Path, environment: Mapping[str, str]) -> Iterator[tuple[str, LedgerReader]]:
    """Run the service on a copy of the storage; yield its address and a reader of its ledger."""
    with tempfile.TemporaryDirectory(prefix="answered-") as folder:
        copy = Path(folder) / "storage"
        shutil.copytree(storage, copy)
        own = {"STORAGE_DIR": str(copy), "PYTHONPATH": str(ROOT)}
        engine = open_engine(copy / "ledger.sqlite3", writer=False)
        try:
            with (copy / "background.lock").open("ab") as background:
                fcntl.flock(background, fcntl.LOCK_EX)
                with service_process({**environment, **own}) as service:
                    yield service.base_url, LedgerReader(engine)
        finally:
            engine.dispose()


async def _answer_all(
    asked: Sequence[Asked], base_url: str, reader: LedgerReader, judged_by: ServiceSettings
) -> list[Answered]:
    judge = Judge(judged_by)
    answered: list[Answered] = []
    async with httpx2.AsyncClient(base_url=base_url, timeout=_ANSWER_S_MAX, trust_env=False) as client:
        for number, question in enumerate(asked, start=1):
            one = await _answer(client, reader, judge, question, number)
            answered.append(one)
            verdict = {True: "correct", False: "wrong", None: "no verdict"}[one.correct]
            _note(
                f"[{number}/{len(asked)}] {verdict}, {one.seconds:.1f} s: {_short(question.text)}\n"
                f"    right: {_short(question.gold)}\n    said:  {_short(one.text)}"
            )
    await judge.close()
    return answered


async def _answer(
    client: httpx2.AsyncClient, reader: LedgerReader, judge: Judge, asked: Asked, number: int
) -> Answered:
    started = time.perf_counter()
    response = await client.post("/v1/chat/completions", json=_request(asked, number))
    seconds = time.perf_counter() - started
    body: dict[str, Any] = response.json()
    if response.status_code != httpx2.codes.OK:
        return Answered(asked, f"({body['error']['message']})", None, seconds, "failed", ())
    withdrawn = await client.delete(f"/v1/memories/{body['turn']['memory_id']}", params={"user": asked.user_id})
    withdrawn.raise_for_status()
    text = visible(body["choices"][0]["message"]["content"])
    usages = await asyncio.to_thread(_usages, reader, body["id"])
    correct = await judge.correct(asked, text)
    return Answered(asked, text, correct, seconds, body["memory_status"]["retrieval"], usages)


def _request(asked: Asked, number: int) -> dict[str, Any]:
    return {
        "user": asked.user_id,
        "temperature": 0,
        "metadata": {"conversation_id": f"question {number}"},
        "messages": [
            {"role": "system", "content": f"Today is {asked.day.isoformat()}. Answer in one short sentence."},
            {"role": "user", "content": asked.text},
        ],
    }


def _usages(reader: LedgerReader, correlation_id: str) -> tuple[Usage, ...]:
    """Return the usage of the chat model's calls for an answer, as the ledger records it."""
    counted = (GateDecided, RerankDecided, TurnRecorded)
    payloads = [event.payload for event in reader.events_of_answer(correlation_id)]
    return tuple(payload.usage for payload in payloads if isinstance(payload, counted) and payload.usage is not None)


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.casefold()) if word not in {"a", "an", "the"}]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else f"{line[: _SHOWN_CHARS - 1]}…"


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
