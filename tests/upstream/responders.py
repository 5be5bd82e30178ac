"""The answers of the scripted upstream unless a test sets others.

A text is a bag of content words (English words without endings, Chinese character bigrams). The more words two texts
share, the nearer their vectors; the gate keeps such a candidate, the rerank puts it first, the answer quotes it. So a
fact told once is found again, the same way every time.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

E5_PREFIXES = ("query: ", "passage: ")
# Each word sets this many dimensions; with one only, two colliding words would be equal.
DIMENSIONS_PER_WORD = 4
SUMMARY_CHARS_MAX = 240
UNKNOWN = "I do not know yet."

_ENGLISH_STOP = frozenset(
    re.findall(
        r"\w+",
        """
        a an and are as at be been but by can could did do does for from had has have he her him his how i
        if in is it its me my of on or our please she should so that the their them there they this to us
        was we were what when where which who why will with would you your yours mine am not no yes tell
        about any also just
        """
        # Words of the prompts, not of the texts in them.
        "assistant candidate date exchange list memory memories message number question said summary user",
    )
)
# Removed before bigrams are made, so that no bigram spans them.
_CHINESE_STOP = re.compile(
    "什么|怎么|多少|哪里|哪儿|请问|记得|知道|告诉|[我你您他她它们的了是吗呢吧啊在和也都就这那还]"
)
_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[\u3400-\u9fff]+")
_CANDIDATE = re.compile(r"^\s*\[(\d+)\]\s*(?:\([^)]*\)\s*)?(.*)$")
_FIXED_LINE = re.compile(
    r"^(?:Question, asked on .*:|(?:Candidates|Notes), until the line (end-[0-9a-f]+):|end-[0-9a-f]{10})$"
)
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]?")


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion request as a responder sees it."""

    kind: str
    body: Mapping[str, Any]
    messages: tuple[tuple[str, str], ...]
    """(role, text) in order."""

    @property
    def system(self) -> str:
        return "\n".join(text for role, text in self.messages if role == "system")

    @property
    def user(self) -> str:
        """The text of the last user message."""
        return next((text for role, text in reversed(self.messages) if role == "user"), "")

    @property
    def candidates(self) -> tuple[tuple[int, str], ...]:
        """The lines `[n] (date) text` of the last user message, without their dates."""
        found = (_CANDIDATE.match(line) for line in self.user.splitlines())
        return tuple((int(m.group(1)), m.group(2)) for m in found if m)

    @property
    def question(self) -> str:
        """The last user message without its candidates, and without the lines around them."""
        said = (line for line in self.user.splitlines() if not _CANDIDATE.match(line) and not _FIXED_LINE.match(line))
        return "\n".join(said).strip()


@dataclass(frozen=True)
class Reply:
    """What the chat model says. Token counts are made from the texts."""

    content: str
    finish_reason: str = "stop"
    reasoning: str | None = None
    reasoning_field: str = "reasoning_content"
    deltas: tuple[Mapping[str, Any], ...] = ()
    """Deltas of a stream that follow the text, such as pieces of tool calls."""
    message: Mapping[str, Any] = field(default_factory=dict)
    """More fields of a whole message, such as its tool calls."""
    choice: Mapping[str, Any] = field(default_factory=dict)
    """More fields of each choice."""
    answer: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the whole answer, or of each chunk."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """More fields of the count of tokens."""


def content_words(text: str) -> list[str]:
    """The words that carry meaning, in order and repeated: English without endings, Chinese bigrams."""
    words: list[str] = []
    for token in _TOKEN.findall(text.lower()):
        if token[0] < "\u3400":
            word = token.partition("'")[0]
            if word not in _ENGLISH_STOP:
                words.append(word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word)
            continue
        for run in filter(None, _CHINESE_STOP.split(token)):
            words.extend([run[i : i + 2] for i in range(len(run) - 1)] or [run])
    return words


def vector(text: str, *, dims: int, seed: str) -> npt.NDArray[np.float32]:
    """The unit vector of a text, shape `(dims,)`: hashed content words; each `seed` hashes its own way."""
    for prefix in E5_PREFIXES:
        text = text.removeprefix(prefix)
    words = content_words(text) or [text]
    total = np.zeros(dims, np.float32)
    for word in words:
        for index, sign in _places(word, dims, seed):
            total[index] += sign
    length = float(np.linalg.norm(total))
    if length == 0.0:  # Rare, and only with few dimensions: the words cancel each other out.
        total[_places(text, dims, seed)[0][0]] = length = 1.0
    return total / np.float32(length)


@lru_cache(maxsize=100_000)
def _places(word: str, dims: int, seed: str) -> tuple[tuple[int, float], ...]:
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), key=seed.encode()[:64], digest_size=32).digest()
    numbers = (int.from_bytes(digest[i : i + 8], "little") for i in range(0, 8 * DIMENSIONS_PER_WORD, 8))
    return tuple(((n >> 1) % dims, 1.0 if n & 1 else -1.0) for n in numbers)


def tokens(text: str) -> int:
    """A plausible token count: a word or a Chinese character is one token."""
    return len(re.findall(r"[a-zA-Z0-9']+|[^\sa-zA-Z0-9']", text))


def shared_words(question: str, text: str) -> int:
    """How many content words two texts share."""
    return len(set(content_words(question)) & set(content_words(text)))


def gate_by_shared_words(request: ChatRequest) -> Reply:
    """Keeps every candidate that shares a content word with the question."""
    asked = set(content_words(request.question))
    return _numbers("keep", [n for n, text in request.candidates if asked & set(content_words(text))])


def gate_keeps_all(request: ChatRequest) -> Reply:
    return _numbers("keep", [n for n, _ in request.candidates])


def gate_drops_all(request: ChatRequest) -> Reply:
    return _numbers("keep", [])


def rerank_by_shared_words(request: ChatRequest) -> Reply:
    """All candidates, those that share most content words with the question first."""
    asked = set(content_words(request.question))
    shared = {n: len(asked & set(content_words(text))) for n, text in request.candidates}
    return _numbers("top", sorted(shared, key=lambda n: (-shared[n], n)))


def summary_in_one_sentence(request: ChatRequest) -> Reply:
    """The start of the exchange on one line."""
    # An endpoint without system messages has the instructions in front of the exchange.
    text = request.user[max(request.user.find("\n\nDate: "), 0) :]
    exchange = re.sub(r"\s+", " ", text).strip().rstrip(".。!?！？")
    return Reply(f"{exchange[:SUMMARY_CHARS_MAX]}.")


def answer_from_memory(request: ChatRequest) -> Reply:
    """Quotes the statement in the prompt that shares most words with the question; of equals, the latest."""
    asked = set(content_words(request.user))
    best, most = UNKNOWN, 0
    for sentence in _statements(request.messages[:-1]):
        shared = len(asked & set(content_words(sentence)))
        if shared and shared >= most:
            best, most = f"From memory: {sentence}", shared
    return Reply(best)


def _statements(messages: Sequence[tuple[str, str]]) -> list[str]:
    found = [s.strip() for _, text in messages for s in _SENTENCE.findall(text)]
    return [s for s in found if s and s[-1] not in "?？" and s != UNKNOWN]


def _numbers(field: str, numbers: list[int]) -> Reply:
    return Reply(json.dumps({field: numbers}))
