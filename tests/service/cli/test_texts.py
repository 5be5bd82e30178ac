"""Texts on a terminal stay in their place, and steer nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from domain.clock import Clock
from domain.console import safe
from domain.errors import InvalidInput
from domain.identity import StreamId
from domain.ledger import Ledger
from service.cli.moments import position_of
from service.cli.shell import opened_audit
from service.cli.texts import cut_lines, one_line
from service.settings import ServiceSettings
from tests.ledgers import START, new_ledger_file, record_turn

TEXTS = st.text(st.sampled_from("ab 汉字\n\t\x1b\x07\u202e\x9b🙂é"), max_size=60)


@given(TEXTS)
def test_nothing_steers_the_terminal(text: str) -> None:
    assert not set(safe(text)) & set("\x1b\x07\u202e\x9b")
    assert len(safe(text)) == len(text)
    assert safe(safe(text)) == safe(text)


@given(TEXTS, st.integers(2, 40))
def test_a_line_is_never_wider_than_its_place(text: str, cells_max: int) -> None:
    line = one_line(text, cells_max)
    assert cell_len(line) <= cells_max
    assert "\n" not in line
    assert one_line(text) == line or line.endswith("…")


@given(TEXTS, st.integers(1, 5))
def test_lines_that_are_left_out_are_counted(text: str, lines_max: int) -> None:
    shown = cut_lines(text, lines_max, 20).split("\n")
    lines = safe(text).splitlines()
    assert len(shown) <= lines_max + 1
    assert all(cell_len(line) <= 20 or line.startswith("…") for line in shown)
    assert (len(lines) > lines_max) == shown[-1].endswith("see --full")
    assert cut_lines(text, None, 20) == "\n".join(lines)


def test_moments(tmp_path: Path) -> None:
    moments = [START + timedelta(days=day) for day in range(3)]
    ledger = Ledger(new_ledger_file(tmp_path), Clock(now=iter(moments).__next__))
    for _ in moments:
        record_turn(ledger, StreamId("ann", "c"))
    ledger.close()
    settings = ServiceSettings.model_construct(storage_dir=tmp_path)
    with opened_audit(settings) as reader:
        assert position_of(reader, "--at", "2") == 2
        assert position_of(reader, "--at", f"{moments[1]:%Y-%m-%d}") == 1
        assert position_of(reader, "--at", f"{moments[2]:%Y-%m-%dT%H:%M:%S}") == 2
        # Three hours ahead of UTC it is an hour before the second event, and one hour ahead an hour after it.
        offset = moments[1] + timedelta(hours=2)
        assert position_of(reader, "--at", f"{offset:%Y-%m-%dT%H:%M:%S}+01:00") == 2
        assert position_of(reader, "--at", f"{offset:%Y-%m-%dT%H:%M:%S}+03:00") == 1
        for wrong in ("9", "-1", "soon", "", "2026-13-01"):
            with pytest.raises(InvalidInput, match="--at"):
                position_of(reader, "--at", wrong)
