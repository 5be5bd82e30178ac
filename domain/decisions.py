"""What the gate and the rerank are asked, and how their answers are read. Pure.

Candidates are numbered 1..N, because ids cost tokens and get cut off. Answers are read leniently: models wrap JSON in
prose and fences, repeat numbers, name some that do not exist, or stop in the middle of the list.

What memories say is quoted, see :mod:`domain.stored_text`. Whatever it says, only candidates that were shown can be
named, and a verdict that a memory holds is not taken for the model's.
"""

from __future__ import annotations

import contextlib
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

from domain.events import GateDecided, JsonObject, Verdict
from domain.memory import Memory, day
from domain.reasoning import storable, visible
from domain.retrieval import Candidate
from domain.stored_text import inert, until

Message = dict[str, str]
CountTokens = Callable[[str], int]

GATE_SCHEMA_NAME = "memory_gate"
RERANK_SCHEMA_NAME = "memory_rerank"
LINES_LAYOUT = "lines-1"
QUOTED_LAYOUT = "quoted-lines-1"
DECISION_LAYOUTS = (LINES_LAYOUT, QUOTED_LAYOUT)
"""New requests use the last. Those of the first, whose lines nothing ends, can be made again."""
LINE_CHARS_MAX = 400
_SHORTER_LINES = (240, 160, 100, 60)
_NUMBER_TOKENS = 6
"""Upper bound for ``[12] `` in front of a line, and for its line break."""
_REASON_CHARS_MAX = 200
NOT_ASKED = "not asked about: the gate's prompt had no room for it"
"""The reason for such a verdict. Ledgers hold it, so it must stay as it is."""

_NUMBER = re.compile(r"\d{1,6}")
_BRACES_MAX = 100
"""At so many braces an object is looked for: each may open a thousand levels, read before they are refused."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision as read: numbers in 1..N in the order named, each once, and reasons by number."""

    numbers: tuple[int, ...]
    reasons: dict[int, str]


def candidate_lines(
    memories: Sequence[Memory], asked_at: datetime, chars_max: int = LINE_CHARS_MAX, layout: str = QUOTED_LAYOUT
) -> list[str]:
    """Return one line per memory, ``[n] (date) summary``; without a summary, the start of the exchange."""
    return [f"[{n}] {_line(memory, asked_at, chars_max, layout)}" for n, memory in enumerate(memories, start=1)]


def fitting_lines(
    memories: Sequence[Memory],
    asked_at: datetime,
    budget_tokens: int,
    count: CountTokens,
    answer_tokens_each: int = 0,
) -> tuple[int, int]:
    """Return how many memories, from the first, and how many characters of each fit into ``budget_tokens``.

    Lines are shortened before any is left out, because a gate that sees the beginning of each decides better than one
    that does not see the last ones at all. A line costs the same in every prompt of a day, so ``count`` may cache it.
    ``answer_tokens_each`` is the room that the answer needs for each memory.
    """
    for chars in (LINE_CHARS_MAX, *_SHORTER_LINES):
        costs = [count(_line(memory, asked_at, chars)) + _NUMBER_TOKENS + answer_tokens_each for memory in memories]
        if sum(costs) <= budget_tokens:
            return len(memories), chars
    fitting = bisect_right(list(accumulate(costs)), budget_tokens)
    return max(fitting, 1), chars


def gate_messages(
    system: str,
    question: str,
    asked_at: datetime,
    memories: Sequence[Memory],
    chars_max: int = LINE_CHARS_MAX,
    layout: str = QUOTED_LAYOUT,
) -> list[Message]:
    """Return the messages sent to the gate."""
    lines = _under("Candidates", candidate_lines(memories, asked_at, chars_max, layout), question, layout)
    request = f"{_dated_question(question, asked_at)}\n\n{lines}"
    return [{"role": "system", "content": system}, {"role": "user", "content": request}]


def rerank_messages(
    system: str,
    question: str,
    asked_at: datetime,
    memories: Sequence[Memory],
    count: int,
    chars_max: int = LINE_CHARS_MAX,
    layout: str = QUOTED_LAYOUT,
) -> list[Message]:
    """Return the messages that ask the rerank for the best ``count``."""
    lines = _under("Notes", candidate_lines(memories, asked_at, chars_max, layout), question, layout)
    request = f"{_dated_question(question, asked_at)}\n\nName the best {count}.\n\n{lines}"
    return [{"role": "system", "content": system}, {"role": "user", "content": request}]


def _under(heading: str, lines: Sequence[str], question: str, layout: str) -> str:
    return "\n".join((f"{heading}:", *lines) if layout == LINES_LAYOUT else until(heading, lines, question))


def _dated_question(question: str, asked_at: datetime) -> str:
    # Candidates carry dates: without the day of the question, "last week" cannot be compared with them.
    return f"Question, asked on {day(asked_at)}:\n{question}"


def gate_format(count: int, *, reasons: bool) -> JsonObject:
    """Return the ``response_format`` for the gate's answer about ``count`` candidates."""
    properties: JsonObject = {"keep": _numbers_schema(count, count)}
    if reasons:
        properties["reasons"] = {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"n": {"type": "integer"}, "why": {"type": "string"}},
                "required": ["n", "why"],
                "additionalProperties": False,
            },
        }
    return _format(GATE_SCHEMA_NAME, properties)


def rerank_format(count: int, wanted: int) -> JsonObject:
    """Return the ``response_format`` for the rerank's answer: at most ``wanted`` of ``count`` numbers."""
    return _format(RERANK_SCHEMA_NAME, {"top": _numbers_schema(count, wanted)})


def read_answer(raw: str, key: str, count: int, shown: str = "") -> Answer | None:
    """Read the numbers under ``key`` from a model's raw answer about candidates 1..``count``.

    ``shown`` is what the model was shown: an answer in it that the model repeats is not the model's own. Returns None
    if the answer has no such list; an empty list is an answer.
    """
    text = visible(raw)
    found = _object_with(text, key, shown)
    if found is not None:
        named = _integers(found[key])
        reasons = _reasons(found.get("reasons"), count)
    else:
        started = re.search(rf"[\"']?{re.escape(key)}[\"']?\s*[:=]\s*\[?([^\]}}]*)", text)
        if started is None:
            started = re.search(r"\A\s*\[([^\]]*)", text)
        if started is None:
            return None
        named = [int(match) for match in _NUMBER.findall(started.group(1))]
        reasons = {}
        if not named and started.group(1).strip():
            return None
    numbers = tuple(dict.fromkeys(number for number in named if 1 <= number <= count))
    if named and not numbers:
        return None  # every number is out of range: no decision on these candidates
    return Answer(numbers, reasons)


def staying(kept: Sequence[int], keep_max: int) -> list[int]:
    """Return the kept numbers, ascending; of more than ``keep_max``, those of the best rank."""
    return sorted(set(kept))[:keep_max]


def verdicts(
    candidates: Sequence[Candidate], kept: Sequence[int], keep_max: int, reasons: dict[int, str]
) -> tuple[Verdict, ...]:
    """Return a verdict per candidate; :func:`staying` decides which of the kept ones stay."""
    wanted, stay = set(kept), set(staying(kept, keep_max))
    return tuple(
        Verdict(
            n=n,
            memory_id=candidate.memory.memory_id,
            keep=n in stay,
            reason=reasons.get(n),
            over_limit=n in wanted and n not in stay,
        )
        for n, candidate in enumerate(candidates, start=1)
    )


def was_asked(gate: GateDecided, verdict: Verdict) -> bool | None:
    """Tell whether a model was asked about a candidate, None where none was asked at all.

    Where the event does not say how many candidates were shown, as in older ones, the reason tells.
    """
    if gate.model is None:
        return None
    return verdict.n <= gate.asked.candidates if gate.asked is not None else verdict.reason != NOT_ASKED


def full_order(named: Sequence[int], count: int) -> list[int]:
    """Return all of 1..``count``: first those named, then the others in ascending order."""
    return [*named, *(n for n in range(1, count + 1) if n not in set(named))]


def _line(memory: Memory, asked_at: datetime, chars_max: int, layout: str = QUOTED_LAYOUT) -> str:
    said = memory.line
    said = said if len(said) <= chars_max else f"{said[: chars_max - 1]}…"
    return f"({memory.dated(asked_at)}) {said if layout == LINES_LAYOUT else inert(said)}"


def _numbers_schema(count: int, items_max: int) -> JsonObject:
    return {
        "type": "array",
        "items": {"type": "integer", "minimum": 1, "maximum": count},
        "maxItems": items_max,
    }


def _format(name: str, properties: JsonObject) -> JsonObject:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def _object_with(text: str, key: str, shown: str) -> JsonObject | None:
    """Return the first JSON object in ``text`` that has a list under ``key`` and does not repeat what was shown.

    Where all of them do, the last one counts: a model says what it read before it says what it means.
    """
    decoder = json.JSONDecoder()
    repeated: JsonObject | None = None
    compact_shown: str | None = None
    at = text.find("{")
    for _ in range(_BRACES_MAX):
        if at == -1:
            break
        value: object = None
        end = at
        # Prose has braces too: skip those that do not open valid JSON.
        with contextlib.suppress(ValueError, RecursionError):
            value, end = decoder.raw_decode(text, at)
        if isinstance(value, dict) and isinstance(value.get(key), list):
            if compact_shown is None:
                compact_shown = _compact(shown)
            if _compact(text[at:end]) not in compact_shown:
                return value
            repeated = value
        at = text.find("{", at + 1)
    return repeated


def _compact(text: str) -> str:
    return "".join(text.split())


def _integers(values: Sequence[Any]) -> list[int]:
    named: list[int] = []
    for value in values:
        if isinstance(value, bool):
            continue
        if isinstance(value, int):
            named.append(value)
        elif isinstance(value, float) and value.is_integer():
            named.append(int(value))
        elif isinstance(value, str) and (match := _NUMBER.search(value)):
            named.append(int(match.group()))
    return named


def _reasons(value: object, count: int) -> dict[int, str]:
    """Read reasons given as ``{"3": "..."}`` or as ``[{"n": 3, "why": "..."}]``."""
    pairs: list[tuple[object, object]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = [(item.get("n"), item.get("why")) for item in value if isinstance(item, dict)]
    reasons: dict[int, str] = {}
    for number, why in pairs:
        known = _integers([number])
        if known and 1 <= known[0] <= count and isinstance(why, str):
            reasons[known[0]] = storable(why[:_REASON_CHARS_MAX])
    return reasons
