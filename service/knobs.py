"""The knobs of a turn: their names, defaults and bounds, read from a request's ``metadata``."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from domain.events import RetrievalMode
from domain.temporal.zones import zone_named

METADATA_KEYS_MAX = 16
METADATA_KEY_CHARS_MAX = 64
"""OpenAI's own bounds: https://platform.openai.com/docs/api-reference/chat/create#chat-create-metadata."""

NEIGHBOR_TURNS_MAX = 5


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("give a whole number")  # noqa: TRY004 - pydantic turns a ValueError into a named error
    return value


Whole = Annotated[int, BeforeValidator(_no_bool)]


Zone = Annotated[str, AfterValidator(lambda name: str(zone_named(name)))]


class Knobs(BaseModel):
    """How a turn uses memory. Values may be JSON values or strings, since OpenAI metadata holds strings.

    None stands for the operator's default, for which ``docs/decisions/0041-one-neighbor-turn.md`` has the reason.
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
    memory_import: bool | None = Field(
        default=None, description="make memories of the turns in the request's history that are not recorded yet"
    )
    timezone: Zone | None = Field(default=None, description="time zone of the person, whose days count")
    use_gate: bool = Field(default=True, description="let the gate drop what does not help")
    use_rerank: bool | None = Field(default=None, description="let the chat model pick the ones to replay")

    @model_validator(mode="before")
    @classmethod
    def _no_misspelt_knob(cls, data: Any) -> Any:
        # Metadata belongs to the client, so unknown keys pass, unless one looks like a misspelt knob.
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
