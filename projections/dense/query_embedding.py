"""Embeds a question and, in the same request, the newest memories that have no vector yet.

So what was said a moment ago is found by the very next question. What is more than a question can wait for is left to
the background; meanwhile the older memories serve.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.errors import EmbeddingRejected
from domain.memory import FacetText
from projections.embedding.endpoint import Vectors
from projections.embedding.model_router import ModelClient

TEXTS_WITH_QUERY_MAX = 8
_CHARS_WITH_QUERY_MAX = 6000


def texts_with_query(missing: Sequence[FacetText]) -> list[str]:
    """Return the first texts that together are short enough not to hold up the question they are embedded with."""
    texts: list[str] = []
    chars = 0
    for change in missing[:TEXTS_WITH_QUERY_MAX]:
        text = change.text or ""
        chars += len(text)
        if chars > _CHARS_WITH_QUERY_MAX:
            break
        texts.append(text)
    return list(dict.fromkeys(texts))


async def embed_with_query(client: ModelClient, query: str, texts: Sequence[str], *, timeout_s: float) -> Vectors:
    """Embed a question and texts of memories: float32 of shape (1 + texts, dimensions), the question's vector first.

    There is one row only where the endpoint refuses the lot: one of the texts is to blame, and the background finds out
    which. Raises an :class:`EmbeddingError`.
    """
    prefixed = [client.query_prefix + query, *(client.space.passage_prefix + text for text in texts)]
    try:
        return await client.embed(prefixed, timeout_s=timeout_s)
    except EmbeddingRejected:
        return await client.embed_query(query, timeout_s=timeout_s)
