"""What one call of a model sent, and to whom: all that is needed to make the same request again."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class ModelCall(BaseModel):
    """One call of a model, and who says to have answered it.

    ``request`` is the body without its messages, extra bodies included, before it was put in the endpoint's
    ``dialect``: what that endpoint was known not to take. ``messages_hash`` is of the messages as they were sent; for a
    rerank endpoint, of its query and documents. ``endpoint`` is its address without credentials. ``attempts`` counts
    the requests that it took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    request: dict[str, Any]
    dialect: dict[str, Any] = {}
    messages_hash: str
    answered_by: str | None = None
    fingerprint: str | None = None
    attempts: int = 1
