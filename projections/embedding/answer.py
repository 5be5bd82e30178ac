"""Read vectors from what an embedding endpoint answers, in all the shapes that endpoints give them. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json

from domain.reasoning import storable
from projections.refusal_reason import reason_of

Row = npt.NDArray[np.float32]


class Reported(Exception):
    """An error inside an answer of status 200; the message is the endpoint's reason."""


def rows_of(content: bytes) -> list[Row]:
    """Return the vectors of an answer, in the order of their texts.

    OpenAI's list under ``data``, Ollama's ``embeddings``, and llama.cpp's bare list; numbers or base64, whichever was
    asked for; ``index`` in any order, or missing; a vector nested one deep. Raises ``ValueError``, ``TypeError``,
    ``LookupError`` or ``OverflowError`` for anything else, and :class:`Reported` for an error.
    """
    answer = from_json(content)
    if isinstance(answer, dict):
        if answer.get("error") or not {"data", "embeddings"} & answer.keys():
            raise Reported(storable(reason_of(answer.get("error")) or reason_of(answer)))
        answer = answer.get("data") or answer["embeddings"]
    if not isinstance(answer, list) or not answer:
        raise ValueError("no vectors")
    return [_row(_vector_in(item)) for item in _in_order(answer)]


def _in_order(items: Sequence[Any]) -> Sequence[Any]:
    """Return items in the order of their indices, where each has one of its own; else as they came."""
    indices = [item.get("index") if isinstance(item, dict) else None for item in items]
    by_index = {index: item for index, item in zip(indices, items, strict=True) if isinstance(index, int)}
    return [by_index[index] for index in sorted(by_index)] if len(by_index) == len(items) else items


def _vector_in(item: Any) -> Any:
    return item["embedding"] if isinstance(item, dict) else item


def _row(value: Any) -> Row:
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value, validate=True), "<f4")
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused
        return np.array([*value], np.float32)
