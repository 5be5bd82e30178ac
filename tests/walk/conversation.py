"""What the walks have in common: asking over HTTP as an OpenAI client does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openai import OpenAI


@dataclass(frozen=True)
class Answer:
    """An answer and the memories it was given from, by their user texts."""

    text: str
    replayed: list[str]
    status: dict[str, Any]


def ask(base_url: str, question: str, conversation: str, user: str = "ann") -> Answer:
    """Ask one question of a running service; a small model may not find an end by itself."""
    with OpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0) as client:
        completion = client.chat.completions.create(
            model="default",
            user=user,
            metadata={"conversation_id": conversation},
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=60,
        )
    extra = completion.model_extra or {}
    return Answer(
        text=completion.choices[0].message.content or "",
        replayed=[memory["raw_user"] for memory in extra["retrieved"]["replay"]],
        status=extra["memory_status"],
    )
