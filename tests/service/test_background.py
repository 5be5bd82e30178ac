"""Several services on one STORAGE_DIR all answer; one of them does the background work, and another takes over."""

from __future__ import annotations

from pathlib import Path

from domain.events import SummaryRecorded
from tests.service.running import running, until
from tests.upstream import ScriptedUpstream

FACTS = ("My dog is called Bruno.", "The spare key hangs behind the clock.", "Basil grows beside tomatoes.")


def test_each_turn_is_summarised_once_whichever_service_answered(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path) as second_to_end:
        with running(upstream, tmp_path) as first_to_end:
            # The one that started later answers like the other, and does nothing else.
            for number, service in enumerate((second_to_end, first_to_end)):
                service.client.tell(FACTS[number], "ann", "facts")
            until("both are summarised", lambda: len(second_to_end.ledger.all(SummaryRecorded, "ann", "facts")) == 2)
            assert "another service does the background work" in first_to_end.log()
        assert len(upstream.calls_of("summary")) == 2


def test_another_service_takes_over_when_the_first_ends(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path) as first:
        second = running(upstream, tmp_path)
        service = second.__enter__()
        first.settle()
    try:
        service.client.tell(FACTS[2], "ann", "facts")
        until("it is summarised", lambda: service.ledger.all(SummaryRecorded, "ann", "facts"))
    finally:
        second.__exit__(None, None, None)
