"""How many tokens a text may have at most, without a tokenizer.

Used where the server offers no `/tokenize`. A prompt that is too long is refused whole, while one that is a
little short loses a memory or two, so the estimate errs upwards: it is meant to be at least what any common
tokenizer makes of running text. It is no bound for strings made to defeat it, such as lists of rare Chinese
characters.

The costs were fitted to the vocabularies of Qwen 3, Llama 2 and 3, Gemma 3, DeepSeek V3 and GPT-4o on
English chat and prose, code, identifiers, Chinese, Japanese, Korean, eight other languages and emoji. The
estimate is 1.2 to 1.35 times the largest of the six counts on English and 1.1 to 1.5 times on Chinese;
Llama 2, with its 32,000 tokens, sets most costs.
"""

import math
import re
from collections import OrderedDict
from functools import lru_cache

ESTIMATES_KEPT_MAX = 50_000
PIECES_CACHED_MAX = 50_000
# A longer piece is hardly met again: it would only fill the cache.
PIECE_CHARS_CACHED_MAX = 40

# Letters and digits with the space before them, other runs of spaces, and all else character by character.
_PIECE = re.compile(r" ?[a-zA-Z0-9]+|  +|[\s\S]")
# A run of letters and digits breaks where capitals begin and at every digit.
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]")
_VOWEL = re.compile("[aeiouAEIOU]")
# Hashes, base64, identifiers with digits: from this length on no vocabulary knows more than crumbs of them.
_MIXED_CHARS_MIN = 8
# (first code point beyond the range, cost of a character); None costs as many tokens as UTF-8 bytes.
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
    """Return an upper estimate of the tokens of ``text`` alone, without what a chat template puts around it."""
    return math.ceil(sum(map(_cost, _PIECE.findall(text))))


class KeptEstimates:
    """Estimates that are remembered: the same memories come up again and again, and a long text takes a while to count.

    Kept are hashes and numbers, never a text; the ones used longest ago are forgotten first.
    """

    def __init__(self) -> None:
        self._tokens: OrderedDict[tuple[int, int], int] = OrderedDict()

    def __call__(self, text: str) -> int:
        """Return :func:`estimate_tokens` of a text."""
        key = (len(text), hash(text))
        tokens = self._tokens.get(key)
        if tokens is None:
            tokens = self._tokens[key] = estimate_tokens(text)
            if len(self._tokens) > ESTIMATES_KEPT_MAX:
                self._tokens.popitem(last=False)
        else:
            self._tokens.move_to_end(key)
        return tokens


def beginning(text: str, tokens_max: int) -> str:
    """Return as much of the beginning of ``text`` as has at most ``tokens_max`` estimated tokens."""
    while (tokens := estimate_tokens(text)) > max(tokens_max, 0) and text:
        text = text[: len(text) * max(tokens_max, 0) // tokens]
    return text


def _cost(piece: str) -> float:
    return _cached_cost(piece) if len(piece) <= PIECE_CHARS_CACHED_MAX else _piece_cost(piece)


def _piece_cost(piece: str) -> float:
    run = piece.lstrip(" ")
    if not run:
        # Sentencepiece vocabularies have runs of up to 16 spaces.
        return 1.0 if len(piece) == 1 else 2.0 + len(piece) // 16
    if not (run.isascii() and run.isalnum()):
        return _character_cost(piece)
    # A space joins the letters that follow it, but no digit.
    apart = 1.0 if run[0].isdigit() and len(run) < len(piece) else 0.0
    if len(run) >= _MIXED_CHARS_MIN and not run.isalpha() and not run.isdigit():
        return apart + len(run)
    return apart + sum(map(_part_cost, _PART.findall(run)))


_cached_cost = lru_cache(maxsize=PIECES_CACHED_MAX)(_piece_cost)


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
