"""Cut a long text into parts at blanks, so that no single call on all of it holds the interpreter. Pure."""

from __future__ import annotations

from collections.abc import Iterator

PART_CHARS = 16_384
_BREAKS = " \n。，"


def parts(text: str, *, anywhere: bool = False) -> Iterator[str]:
    """Yield a text in parts that join to it, each of ``PART_CHARS`` at most where it has a blank or a stop to cut at.

    The next part begins with that character. Without one in reach, a part is longer, or is cut ``anywhere``.
    """
    start = 0
    while len(text) - start > PART_CHARS:
        end = start + PART_CHARS
        cut = max(text.rfind(char, start + 1, end) for char in _BREAKS)
        if cut == -1 and not anywhere:
            cut = min((at for char in _BREAKS if (at := text.find(char, end)) != -1), default=len(text))
        elif cut == -1:
            cut = end
        yield text[start:cut]
        start = cut
    yield text[start:]
