"""Two services over one storage lose, double and renumber nothing, whoever answers whom."""

from __future__ import annotations

from pathlib import Path

from tests.faults.two_services import two_services


def test_clients_of_one_person_on_two_services(tmp_path: Path) -> None:
    done = two_services(tmp_path, users=2, clients_of_each=4, seconds=3.0)
    assert (done.wrong, done.refused, done.broken) == ([], 0, 0)
    assert done.acknowledged > 0
