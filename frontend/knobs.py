"""The dials of one question: their names on the wire, defaults and bounds, in the order they are shown.

The bounds are the service's own; keeping them here lets a field refuse a value before it costs a request.
The service stays the judge: a value it refuses comes back as an error that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KnobValue = int | float | bool | str | None
"""What a dial can hold; None means "left to the service" and is not sent."""


@dataclass(frozen=True)
class Count:
    """A whole number between `low` and `high`, both allowed. A default of None leaves it to the service."""

    name: str
    default: int | None
    low: int
    high: int
    step: int = 1


@dataclass(frozen=True)
class Switch:
    """On or off."""

    name: str
    default: bool


@dataclass(frozen=True)
class Choice:
    """One of several values; `options` gives the name of each one's label."""

    name: str
    default: str
    options: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True)
class Dial:
    """A real number between `low` and `high`, both allowed."""

    name: str
    default: float
    low: float
    high: float
    step: float


MEMORY_COUNTS = (
    Count("recent_turns", default=6, low=0, high=50),
    Count("retrieve_k", default=5, low=0, high=50),
    Count("neighbor_turns", default=1, low=0, high=5),
    Count("candidate_n", default=60, low=0, high=500, step=10),
    Count("gate_keep_max", default=30, low=1, high=500, step=5),
)
RETRIEVAL = Choice(
    "retrieval",
    default="hybrid",
    options={"hybrid": "retrieval_hybrid", "dense": "retrieval_dense", "lexical": "retrieval_lexical"},
)
MEMORY_SWITCHES = (Switch("use_gate", default=True), Switch("use_rerank", default=True))
TEMPERATURE = Dial("temperature", default=0.7, low=0.0, high=2.0, step=0.1)
# Above any context a chat model has today; it only keeps a typing slip from becoming a request.
MAX_TOKENS = Count("max_tokens", default=None, low=1, high=1_000_000, step=256)

MEMORY_KNOBS: tuple[Count | Choice | Switch, ...] = (*MEMORY_COUNTS, RETRIEVAL, *MEMORY_SWITCHES)
KNOBS: tuple[Count | Choice | Switch | Dial, ...] = (*MEMORY_KNOBS, TEMPERATURE, MAX_TOKENS)


def memory_metadata(values: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    """The knobs that ride in `metadata`, out of all values by name."""
    return {knob.name: values[knob.name] for knob in MEMORY_KNOBS}


def answer_parameters(values: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    """The knobs that are OpenAI's own request fields; one that was left to the service is left out."""
    # 0.1 steps in binary arithmetic arrive as 0.30000000000000004.
    temperature = round(float(values[TEMPERATURE.name] or 0.0), 2)
    max_tokens = values[MAX_TOKENS.name]
    parameters: dict[str, KnobValue] = {TEMPERATURE.name: temperature}
    if max_tokens is not None:
        parameters[MAX_TOKENS.name] = max_tokens
    return parameters
