"""The figures of a gate: evidence and other candidates count the same, however few there are of the one."""

from __future__ import annotations

import pytest

from benchmarks.gated import Gated
from domain.events import GateDecided


def decision(outcome: str = "ok") -> GateDecided:
    return GateDecided.model_validate(
        {
            "strategy": "score",
            "outcome": outcome,
            "note": None,
            "model": None,
            "prompt_version": None,
            "keep_max": 30,
            "score_rule": None,
            "verdicts": (),
            "raw_answer": None,
            "usage": None,
            "latency_ms": 2000.0,
        }
    )


def test_balanced_accuracy_and_what_is_kept() -> None:
    gated = Gated()
    gated.take({1, 2}, [1, 2, 3, 4, 5, 6], [1, 3], decision())
    assert gated.balanced_accuracy == pytest.approx((1 / 2 + 3 / 4) / 2)
    told = gated.tell("score")
    assert "1 questions (1 ok): evidence 1.000 among the candidates, 0.500 kept (50% of it) in 2.0 memories" in told
    assert "2.000 s a call (median)" in told


def test_evidence_that_was_not_found_is_no_fault_of_the_gate() -> None:
    gated = Gated()
    gated.take({9}, [1, 2], [], decision("fallback"))
    assert gated.balanced_accuracy == 1
    assert "(1 fallback): evidence 0.000 among the candidates, 0.000 kept in 0.0 memories" in gated.tell("llm")
