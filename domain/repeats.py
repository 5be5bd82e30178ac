"""Which candidates only repeat a newer one: of memories that say the same, the newest is enough. Pure.

Nothing is as near to a question as the same question asked before, whatever was answered then, so ten of those would
leave no room for the statement that answers it. Of the turns that asked the same as the question does now, only the
newest with an answer goes on.

Other turns repeat a newer one if the person said the same words, and the newer exchange holds most of the older one's.
The same *words*, not a like meaning: "I live in Rome" and "I live in Oslo" mean nearly the same to any measure, and
both are needed to see what changed. Answers are compared because the same words can bring new ones ("Go on.").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from domain.memory import Memory
from domain.temporal.time_range import TimeRange

Repeat = Literal["older_same_question", "older_near_duplicate"]

_SHARED_MIN = 0.5
"""The share of an older exchange's words that a newer one must hold to make it superfluous."""
_COMPARED_CHARS = 20_000
"""Of so much of a text the words are compared: those of millions of characters would take hundreds of megabytes."""
_RUN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]+|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_QUESTION_MARK = re.compile("[?？؟]")


def is_question(text: str) -> bool:
    """Tell whether a text asks something, by a question mark of any script."""
    return _QUESTION_MARK.search(text) is not None


def asks_the_same(question: str, other: str) -> bool:
    """Tell whether two questions are the same apart from case, punctuation and spaces."""
    return _words(question) == _words(other)


class Repeated(NamedTuple):
    """The position of the newer memory that makes an older one superfluous, and why."""

    newer: int
    why: Repeat


def repeats(question: str, memories: Sequence[Memory], wanted: TimeRange | None = None) -> Mapping[int, Repeated]:
    """Return the memories, by their positions, that only repeat a newer one.

    What was said in the ``wanted`` time, which the question names, repeats nothing, and neither does a memory that a
    person has corrected: its words are no longer what it says.
    """
    asked, open_question = _words(question), is_question(question)
    # "I live in Rome." has the words of "I live in Rome?" and may answer it: what asks and what tells stay apart.
    alike: dict[tuple[bool, tuple[str, ...]], list[Memory]] = {}
    for memory in memories:
        if not memory.edited and (words := _words(memory.user)):
            alike.setdefault((is_question(memory.user), words), []).append(memory)
    found: dict[int, Repeated] = {}
    for (asks, words), same in alike.items():
        if len(same) > 1:
            found |= _asked_again(same) if words == asked and (asks or not open_question) else _told_again(same)
    timed = {memory.position for memory in memories if wanted is not None and wanted.start <= memory.ts < wanted.end}
    return {older: repeated for older, repeated in found.items() if older not in timed}


def _asked_again(same: Sequence[Memory]) -> dict[int, Repeated]:
    stays = max(same, key=lambda memory: (bool(memory.assistant.strip()), memory.position))
    return {memory.position: Repeated(stays.position, "older_same_question") for memory in same if memory is not stays}


def _told_again(same: Sequence[Memory]) -> dict[int, Repeated]:
    """Compare each exchange with the newer ones that stay, the newest first."""
    stay: list[tuple[Memory, frozenset[str]]] = []
    found: dict[int, Repeated] = {}
    for memory in sorted(same, key=lambda memory: memory.position, reverse=True):
        terms = _terms(f"{memory.user}\n{memory.assistant}")
        held_by = next((other for other, held in stay if len(terms & held) >= _SHARED_MIN * len(terms)), None)
        if held_by is None:
            stay.append((memory, terms))
        else:
            found[memory.position] = Repeated(held_by.position, "older_near_duplicate")
    return found


def _words(text: str) -> tuple[str, ...]:
    """Return the words of a text, and of a very long one what it goes on with, as it is."""
    words = tuple(re.findall(r"\w+", unicodedata.normalize("NFKC", text[:_COMPARED_CHARS]).casefold()))
    return words if len(text) <= _COMPARED_CHARS else (*words, text[_COMPARED_CHARS:])


def _terms(text: str) -> frozenset[str]:
    """Return the words of a text's beginning; of scripts without spaces, pairs of characters."""
    terms: set[str] = set()
    for run in _RUN.findall(unicodedata.normalize("NFKC", text[:_COMPARED_CHARS]).casefold()):
        terms |= {one + other for one, other in pairwise(run)} if _UNSPACED.match(run) and len(run) > 1 else {run}
    return frozenset(terms)
