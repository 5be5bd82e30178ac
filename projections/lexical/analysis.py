"""Turns texts and questions into the words of the lexical index.

Texts and questions are first made alike: without case, and without the signs that people leave out as they please
(accents, the vowel points of Arabic and Hebrew, the dots of ё, invisible characters). Signs that make another letter or
syllable stay: й, か and が, the vowels of Thai and Hindi.

What is no letter, digit or sign separates words. That is decided here for texts and questions alike: SQLite, whose
tokenizer then splits at blanks and stems English words, knows another version of Unicode. It cannot split text that is
written without spaces, so Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese are split here: a run of such
characters, each with its signs, becomes its overlapping pairs, and then its last character alone. Every character then
begins exactly one word: pairs find a longer run, and a prefix finds a single character. A letter with signs is often a
word of its own, so a question is also asked by each of these.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from domain.parts import parts
from domain.temporal.english_dates import MONTH_WRITTEN_OUT

VERSION = 3
"""Raise it when a text yields other words than before: an index made with another version is built again."""

TOKENIZER = "porter unicode61 remove_diacritics 2 categories 'L* N* M* Co'"
"""For SQLite's FTS5: https://sqlite.org/fts5.html#tokenizers. By default, signs (M*) would end a word."""

_ONE_BY_ONE = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0002b81d\U0002f800-\U0002fa1d"
)
"""Ideographs, kana and hangul that SQLite's Unicode tables count as letters."""
_WITH_SIGNS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai
    "\u0e81-\u0ebd\u0ec0-\u0ece\u0edc-\u0edf"  # Lao
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a-\uaa7f"  # Burmese
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
)
"""The letters and signs of scripts whose syllables have signs around a letter, without their digits."""
_UNSPACED = _ONE_BY_ONE + _WITH_SIGNS
_SIGNS = "".join(
    sign
    for first, last in re.findall("(.)-(.)", _WITH_SIGNS)
    for sign in map(chr, range(ord(first), ord(last) + 1))
    if unicodedata.category(sign).startswith("M")
)
_JOINERS = "\u1039\u17d2"
"""Burmese and Khmer: the next letter is written below the one before."""
_RUN = re.compile(f"[{_UNSPACED}]+")
_CHARACTER = re.compile(f".(?:[{_JOINERS}].|[{_SIGNS}\u17dd])*")
_WORD = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}\\s]+")
_UNWRITTEN = re.compile(
    # Accents; but й, ў and ї are not и, у and і.
    "[\u0300-\u0305\u0307\u0309-\u036f]|(?<![иу])\u0306|(?<!і)\u0308"
    # Hebrew points, and Arabic vowel signs, hamza on a letter, and the stroke that only lengthens a word.
    "|[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"
    "|[\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]"
    # Invisible characters: soft hyphens, joiners, marks of direction, variation selectors.
    "|[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_SAME_LETTER = str.maketrans("ıٱىیکةە", "iاييكهه")
"""Letters of their own that people type for one another: Turkish i, alef, Arabic and Persian ya, kaf and ha."""
_MONTHS = MONTH_WRITTEN_OUT.title().split("|")
_KEPT_CODES_MAX = 0xFFFF
_QUERY_CHARS_MAX = 4000
_TERMS_MAX = 64

_STOP_WORDS = frozenset(
    (  # noqa: SIM905 - a list of quoted words would fill two pages
        "a about after again all also am an and any are aren as at be been before being but by can could couldn d did "
        "didn do does doesn doing don down for from had hadn has hasn have haven having he her here hers him his how i "
        "if in into is isn it its just ll m me might more most much must my no nor not now of off on once only or "
        "other our ours out over own re s same shall she should shouldn so some such t than that the their theirs them "
        "then there these they this those through to too under up us ve very was wasn we were weren what when where "
        "which while who whom whose why will with would wouldn you your yours"
    ).split()
)
"""English words that do not tell what a question is about. In other languages only their frequency tells."""


class Term(NamedTuple):
    """A word to look for; with ``prefix``, every word that begins with it."""

    text: str
    prefix: bool = False

    def as_fts5(self) -> str:
        """Return the term in FTS5's syntax, quoted so that nothing in it is syntax itself."""
        return f'"{self.text}"*' if self.prefix else f'"{self.text}"'


def indexed(text: str) -> str:
    """Return a text ready for SQLite's tokenizer."""
    return "".join(_RUN.sub(lambda run: f" {' '.join(_words_of(run.group()))} ", _plain(part)) for part in parts(text))


def dated(moment: datetime) -> str:
    """Return a date as people write it in questions: ``8 May 2023``."""
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}"


def terms(query: str) -> list[Term]:
    """Return the distinct words of a question, in order, without stop words unless there are no others.

    Of a very long question only the beginning counts: at most 64 terms.
    """
    found: dict[Term, None] = {}
    for word in _WORD.findall(_plain(query[:_QUERY_CHARS_MAX])):
        if not _RUN.match(word):
            found[Term(word)] = None
        elif len(words := _words_of(word)) == 1:
            found[Term(word, prefix=True)] = None
        else:
            found.update(dict.fromkeys(map(Term, words[:-1])))
            syllables = [each for each in _CHARACTER.findall(word) if len(each) > 1]
            found.update(dict.fromkeys(Term(syllable, prefix=True) for syllable in syllables))
    content_words = [term for term in found if term.text not in _STOP_WORDS]
    return (content_words or list(found))[:_TERMS_MAX]


def _alike(text: str) -> str:
    """Return a text without differences that people do not see or do not type."""
    if text.isascii():
        return text.lower()
    # Folded between two decompositions: a fold can compose, and a part of a compatible form can have a case.
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", _UNWRITTEN.sub("", decomposed).translate(_SAME_LETTER))


def _plain(text: str) -> str:
    """Return the words of a text, as far as they stand apart, with a blank for everything else."""
    return _alike(text).translate(_BLANKS)


class _Blanks(dict[int, int]):
    """For :meth:`str.translate`: a blank for each character that no word has, and 0 to 9 for every script's digits."""

    def __missing__(self, code: int) -> int:
        char = chr(code)
        category = unicodedata.category(char)
        in_a_word = category[0] in "LNM" or category == "Co" or _RUN.match(char) is not None
        digit = unicodedata.decimal(char, None)
        kept = ord(str(digit)) if digit is not None else code if in_a_word else ord(" ")
        if code <= _KEPT_CODES_MAX:
            self[code] = kept
        return kept


_BLANKS = _Blanks()


def _words_of(run: str) -> list[str]:
    """Return the pairs of a run's characters, and its last character."""
    characters = _CHARACTER.findall(run)
    return [*map("".join, pairwise(characters)), characters[-1]]
