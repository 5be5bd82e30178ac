"""Turns texts and questions into the words of the lexical index.

SQLite's tokenizer splits at everything that is not a letter or digit, folds case, removes accents and stems English
words. It cannot split text that is written without spaces, so Chinese, Japanese and Korean are split here first: a run
of such characters becomes its overlapping pairs, and then its last character alone. Every character then begins exactly
one word: pairs find a longer run, and a prefix finds a single character.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import NamedTuple

from domain.temporal.english_dates import MONTH_WRITTEN_OUT

VERSION = 2
"""Raise it when a text yields other words than before: an index made with another version is built again."""

TOKENIZER = "porter unicode61 remove_diacritics 2"
"""For SQLite's FTS5: https://sqlite.org/fts5.html#tokenizers."""

_UNSPACED = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0002b81d\U0002f800-\U0002fa1d"
)
"""Ideographs, kana and hangul that SQLite's Unicode tables count as letters."""
_RUN = re.compile(f"[{_UNSPACED}]+")
_WORD = re.compile(f"[{_UNSPACED}]+|[^\\W_{_UNSPACED}]+")
_MONTHS = MONTH_WRITTEN_OUT.title().split("|")
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
    return _RUN.sub(lambda run: f" {' '.join(_pairs(run.group()))} {run.group()[-1]} ", _normal(text))


def dated(moment: datetime) -> str:
    """Return a date as people write it in questions: ``8 May 2023``."""
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year}"


def terms(query: str) -> list[Term]:
    """Return the distinct words of a question, in order, without stop words unless there are no others.

    Of a very long question only the beginning counts: at most 64 terms.
    """
    found: dict[Term, None] = {}
    for word in _WORD.findall(_normal(query[:_QUERY_CHARS_MAX])):
        if not _RUN.match(word):
            found[Term(word.casefold())] = None
        elif len(word) == 1:
            found[Term(word, prefix=True)] = None
        else:
            found.update(dict.fromkeys(map(Term, _pairs(word))))
    content_words = [term for term in found if term.text not in _STOP_WORDS]
    return (content_words or list(found))[:_TERMS_MAX]


def _normal(text: str) -> str:
    """Return a text without differences that people do not see (full-width letters, composed characters)."""
    return unicodedata.normalize("NFKC", text)


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)]
