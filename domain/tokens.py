"""A token count without a tokenizer that errs on the side of too many."""

from __future__ import annotations

import re

_PIECE = re.compile(r"[A-Za-z]+|[0-9]|[^\S\n]+|\n+|[^\sA-Za-z0-9]")
_LETTERS_PER_TOKEN = 3.2


def estimate_tokens(text: str) -> int:
    """Return an upper estimate of the tokens of ``text`` for the common byte-pair vocabularies."""
    tokens = 0.0
    for match in _PIECE.finditer(text):
        piece = match.group()
        first = piece[0]
        if first.isascii():
            if first.isalpha():
                tokens += max(1.0, len(piece) / _LETTERS_PER_TOKEN)
            elif first.isspace():
                tokens += 0.0 if piece == " " else 1.0
            else:
                tokens += 1.0
        else:
            tokens += 2.0
    return int(tokens) + 1
