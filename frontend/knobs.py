"""The knobs of a question: wire names, defaults and bounds, in display order.

The bounds repeat the service's, so that a field can refuse a value without a request. The service decides: a value it
refuses comes back as an error that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KnobValue = int | float | bool | str | None
"""The value of a knob; None means "left to the service" and is not sent."""


@dataclass(frozen=True)
class Count:
    """A whole number from `low` to `high`. A default of None leaves it to the service."""

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
    """One of several values; `options` maps each to the key of its label."""

    name: str
    default: str
    options: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True)
class Dial:
    """A real number from `low` to `high`."""

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
# Above the context of any chat model: it only catches typing errors.
MAX_TOKENS = Count("max_tokens", default=None, low=1, high=1_000_000, step=256)

MEMORY_KNOBS: tuple[Count | Choice | Switch, ...] = (*MEMORY_COUNTS, RETRIEVAL, *MEMORY_SWITCHES)
KNOBS: tuple[Count | Choice | Switch | Dial, ...] = (*MEMORY_KNOBS, TEMPERATURE, MAX_TOKENS)


def memory_metadata(values: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    """The knobs that are sent in `metadata`, from all values by name."""
    return {knob.name: values[knob.name] for knob in MEMORY_KNOBS}


def answer_parameters(values: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    """The knobs that are request fields of OpenAI's API, without those left to the service."""
    # Steps of 0.1 add up to 0.30000000000000004 in binary floating point.
    temperature = round(float(values[TEMPERATURE.name] or 0.0), 2)
    max_tokens = values[MAX_TOKENS.name]
    parameters: dict[str, KnobValue] = {TEMPERATURE.name: temperature}
    if max_tokens is not None:
        parameters[MAX_TOKENS.name] = max_tokens
    return parameters
