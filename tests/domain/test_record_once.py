"""Two processes that find the same event missing at the same moment record it once."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import LedgerOverloaded
from domain.events import PromptsActivated
from domain.identity import SYSTEM_STREAM
from domain.ledger import Ledger
from domain.record_once import record_once
from domain.sqlite import SHARES_WRITING
from tests.ledgers import opened

PROMPTS = PromptsActivated(versions={"GATE_SYSTEM": "sha256:1"}, texts={"GATE_SYSTEM": "Choose."})


def recorded(ledger: Ledger) -> int:
    return sum(isinstance(event.payload, PromptsActivated) for event in ledger.reader.events_after(0, 100))


def missing(ledger: Ledger) -> PromptsActivated | None:
    return None if ledger.reader.active_prompts() == PROMPTS else PROMPTS


def test_an_event_that_exists_is_not_recorded_again(ledger: Ledger) -> None:
    assert record_once(ledger, SYSTEM_STREAM, lambda: missing(ledger)) is True
    assert record_once(ledger, SYSTEM_STREAM, lambda: missing(ledger)) is False
    assert recorded(ledger) == 1


@pytest.mark.skipif(not SHARES_WRITING, reason="this SQLite allows one writer only")
def test_an_event_recorded_meanwhile_by_another_process_is_noticed(ledger: Ledger, ledger_path: Path) -> None:
    with opened(ledger_path) as other:

        def missing_until_the_other_records() -> PromptsActivated | None:
            found = missing(ledger)
            record_once(other, SYSTEM_STREAM, lambda: missing(other))
            return found

        assert record_once(ledger, SYSTEM_STREAM, missing_until_the_other_records) is False
    assert recorded(ledger) == 1


def test_a_stream_that_keeps_changing_is_given_up(ledger: Ledger) -> None:
    def always_too_late() -> PromptsActivated:
        record_once(ledger, SYSTEM_STREAM, lambda: PROMPTS)
        return PROMPTS

    with pytest.raises(LedgerOverloaded, match="keep appending"):
        record_once(ledger, SYSTEM_STREAM, always_too_late)
