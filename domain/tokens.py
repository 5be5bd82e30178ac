"""Estimate the tokens of a text without a tokenizer, rather too many than too few.

Used where the server offers no `/tokenize`. The server refuses a prompt that is too long, while one that is a little
short only loses a memory or two. So the estimate is meant to be at least what any common tokenizer makes of ordinary
text. It does not bound text made to defeat it, such as lists of rare Chinese characters.

docs/decisions/0010-estimate-tokens.md says what the costs were fitted to.
"""

import math
import re
import threading
from collections import OrderedDict

from domain.parts import parts

ESTIMATES_KEPT_MAX = 50_000
PIECES_CACHED_MAX = 50_000
# Longer pieces rarely repeat and would only fill the cache.
PIECE_CHARS_CACHED_MAX = 40

# Letters and digits with the space before them, other runs of spaces, and any other single character.
_PIECE = re.compile(r" ?[a-zA-Z0-9]+|  +|[\s\S]")
# A run of letters and digits breaks where capitals begin and at every digit.
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]")
# Costs by the hashes of their pieces: no word, name or key of a person who was erased stays in memory.
_costs: dict[int, float] = {}
_VOWEL = re.compile("[aeiouAEIOU]")
# Hashes, base64, identifiers with digits: from this length on vocabularies split them into single characters.
_MIXED_CHARS_MIN = 8
# (first code point after the range, cost of a character); None means one token for each UTF-8 byte.
_CHARACTER_COSTS = (
    (0x80, 1.0),  # ASCII punctuation and control characters
    (0x370, 1.1),  # Latin letters with accents
    (0x800, 1.25),  # Greek, Cyrillic, Hebrew, Arabic
    (0x2000, 1.4),  # Indic scripts, Thai
    (0x2070, 2.0),  # quotation marks and dashes
    (0x3000, None),  # symbols
    (0x3100, 1.35),  # kana and Chinese punctuation
    (0x4E00, None),  # rare Chinese characters
    (0xA000, 1.7),  # Chinese characters in use
    (0xAC00, None),
    (0xD7B0, 1.7),  # Hangul
    (0xFF00, None),
    (0xFFF0, 1.7),  # full-width forms
)


def estimate_tokens(text: str) -> int:
    """Return an upper estimate of the tokens of ``text`` alone, without what a chat template adds."""
    return math.ceil(sum(sum(map(_cost, _PIECE.findall(part))) for part in parts(text, anywhere=True)))


class KeptEstimates:
    """A bounded cache of estimates: the same memories return turn after turn.

    It keeps hashes and numbers, never a text, and drops the least recently used first. Safe to call from any thread.
    """

    def __init__(self) -> None:
        self._tokens: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, text: str) -> int:
        """Return :func:`estimate_tokens` of a text."""
        key = (len(text), hash(text))
        with self._lock:
            tokens = self._tokens.get(key)
            if tokens is not None:
                self._tokens.move_to_end(key)
                return tokens
        tokens = estimate_tokens(text)
        with self._lock:
            self._tokens[key] = tokens
            if len(self._tokens) > ESTIMATES_KEPT_MAX:
                self._tokens.popitem(last=False)
        return tokens


def beginning(text: str, tokens_max: int) -> str:
    """Return the beginning of ``text`` that has at most ``tokens_max`` estimated tokens."""
    while (tokens := estimate_tokens(text)) > max(tokens_max, 0) and text:
        text = text[: len(text) * max(tokens_max, 0) // tokens]
    return text


def _cost(piece: str) -> float:
    key = hash(piece)
    cost = _costs.get(key)
    if cost is None:
        cost = _piece_cost(piece)
        if len(piece) <= PIECE_CHARS_CACHED_MAX:
            if len(_costs) >= PIECES_CACHED_MAX:
                _costs.clear()
            _costs[key] = cost
    return cost


def _piece_cost(piece: str) -> float:
    run = piece.lstrip(" ")
    if not run:
        # SentencePiece vocabularies have runs of up to 16 spaces.
        return 1.0 if len(piece) == 1 else 2.0 + len(piece) // 16
    if not (run.isascii() and run.isalnum()):
        return _character_cost(piece)
    # A space merges into a token with the letters after it, but not with a digit.
    apart = 1.0 if run[0].isdigit() and len(run) < len(piece) else 0.0
    if len(run) >= _MIXED_CHARS_MIN and not run.isalpha() and not run.isdigit():
        return apart + len(run)
    return apart + sum(map(_part_cost, _PART.findall(run)))


def _part_cost(part: str) -> float:
    length = len(part)
    if length > 3 and not _VOWEL.search(part):
        return 0.9 * length
    if part.isupper():
        return 0.5 + length / 2
    return 1.0 if length <= 4 else 0.25 + length / 4


def _character_cost(character: str) -> float:
    code = ord(character)
    cost = next((cost for end, cost in _CHARACTER_COSTS if code < end), None)
    return float(len(character.encode("utf-8", "surrogatepass"))) if cost is None else cost
