"""The knobs of a turn: names, defaults and bounds, and how they are read from a request's ``metadata``."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from domain.events import RetrievalMode

METADATA_KEYS_MAX = 16
METADATA_KEY_CHARS_MAX = 64
"""OpenAI's own bounds: https://platform.openai.com/docs/api-reference/chat/create#chat-create-metadata."""

NEIGHBOR_TURNS_MAX = 5


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("give a whole number")  # noqa: TRY004 - pydantic turns a ValueError into a named error
    return value


Whole = Annotated[int, BeforeValidator(_no_bool)]


class Knobs(BaseModel):
    """How a turn uses memory. Values may be JSON values or strings, since OpenAI metadata holds strings.

    None stands for the operator's default. That ``neighbor_turns`` is 1 unless the operator says otherwise was
    measured on the 760 questions of five LoCoMo conversations (multilingual-e5, ``python -m benchmarks.replayed``):
    with 5 exchanges replayed, 1 raises the evidence among what is replayed from 0.61 to 0.75, and 2 to 0.77, while the
    replayed text grows from 425 to 1060 and 1580 tokens. The same tokens spent on 12 exchanges give 0.73.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    recent_turns: Whole = Field(default=6, ge=0, le=50, description="turns of this conversation shown in full")
    candidate_n: Whole = Field(default=60, ge=0, le=500, description="memories proposed by the index")
    retrieval: RetrievalMode = Field(default="hybrid", description="which indices propose memories")
    retrieve_k: Whole = Field(default=5, ge=0, le=50, description="memories replayed as past turns")
    neighbor_turns: Whole | None = Field(
        default=None, ge=0, le=NEIGHBOR_TURNS_MAX, description="turns on each side that come along with a replayed one"
    )
    gate_keep_max: Whole = Field(default=30, ge=1, le=500, description="memories the gate may keep")
    use_gate: bool = Field(default=True, description="let the gate drop what does not help")
    use_rerank: bool | None = Field(default=None, description="let the chat model pick the ones to replay")

    @model_validator(mode="before")
    @classmethod
    def _no_misspelt_knob(cls, data: Any) -> Any:
        # Metadata is the client's own, so an unknown key is none of our business, unless it is a knob with a slip.
        if isinstance(data, dict) and len(data) > METADATA_KEYS_MAX:
            raise ValueError(f"send at most {METADATA_KEYS_MAX} entries, not {len(data)}")
        for key in data if isinstance(data, dict) else ():
            if len(str(key)) > METADATA_KEY_CHARS_MAX:
                raise ValueError(f"a key has at most {METADATA_KEY_CHARS_MAX} characters")
            if key not in cls.model_fields and (
                close := difflib.get_close_matches(str(key), cls.model_fields, 1, 0.85)
            ):
                raise ValueError(f"{key!r} is no knob: did you mean {close[0]!r}?")
        return data
