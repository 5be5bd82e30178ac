"""A token count without a tokenizer that errs on the side of too many."""

from __future__ import annotations

import re

_PIECE = re.compile(r"[A-Za-z]+|[^\sA-Za-z]|[^\S\n]{2,}|\n+|[^\S\n ]")
_LETTERS_PER_TOKEN = 3.2


def estimate_tokens(text: str) -> int:
    """Return an upper estimate of the tokens of ``text`` for the common byte-pair vocabularies.

    A single blank costs nothing: it belongs to the word behind it.
    """
    tokens = 0.0
    # Some 20,000 pieces a turn come through here: the pattern leaves as little as possible to the loop.
    for piece in _PIECE.findall(text):
        if not piece.isascii():
            tokens += 2.0
        elif len(piece) > _LETTERS_PER_TOKEN and piece.isalpha():
            tokens += len(piece) / _LETTERS_PER_TOKEN
        else:
            tokens += 1.0
    return int(tokens) + 1
