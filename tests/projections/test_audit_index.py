"""``audit.sqlite3`` says what the audit views say, of any history, however it came up to date."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import IndexUnavailable
from domain.ledger import Ledger
from domain.sqlite import DRIVER
from projections import audit_index
from projections.audit_index import AUDIT_NAME, bring_up_to_date
from projections.erasure import ErasedUser, erase_user
from tests.audit_history import STEPS, Step, append_steps, history
from tests.ledgers import new_ledger_file, opened

DECISIONS_OF_THE_VIEWS = """
SELECT
    retrievals.position, retrievals.recorded_at, retrievals.user_id,
    gate_decisions.strategy, gate_decisions.outcome, gate_decisions.model, gate_decisions.prompt_version,
    retrievals.embedding_model, retrievals.candidates, retrievals.excluded,
    (SELECT count(*) FROM candidates WHERE candidates.retrieval_position = retrievals.position AND gate_asked = 0),
    (SELECT count(gate_keep) FROM candidates WHERE candidates.retrieval_position = retrievals.position),
    (SELECT coalesce(sum(gate_keep), 0) FROM candidates WHERE candidates.retrieval_position = retrievals.position),
    (SELECT count(*) FROM candidates WHERE candidates.retrieval_position = retrievals.position
       AND gate_keep IS NOT NULL AND gate_over_limit),
    (SELECT count(dense_score) FROM candidates WHERE candidates.retrieval_position = retrievals.position),
    (SELECT total(dense_score) FROM candidates WHERE candidates.retrieval_position = retrievals.position),
    (SELECT max(dense_score) FROM candidates WHERE candidates.retrieval_position = retrievals.position),
    (SELECT count(dense_score) FROM candidates
     WHERE candidates.retrieval_position = retrievals.position AND shown_as = 'replayed'),
    (SELECT total(dense_score) FROM candidates
     WHERE candidates.retrieval_position = retrievals.position AND shown_as = 'replayed')
FROM retrievals
LEFT JOIN gate_decisions USING (correlation_id)
WHERE NOT retrievals.imported
ORDER BY retrievals.position
"""
JUDGED_OF_THE_VIEWS = """
SELECT candidates.user_id, candidates.query, candidates.memory_position, gate_decisions.model,
       gate_decisions.prompt_version, count(*), sum(gate_keep OR gate_over_limit), max(candidates.retrieval_position)
FROM candidates
JOIN gate_decisions USING (correlation_id)
WHERE gate_decisions.outcome = 'ok' AND gate_asked AND NOT candidates.imported
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1, 2, 3, 4, 5
"""
JUDGED_OF_THE_FILE = """
SELECT asked.user_id, asked.payload ->> '$.query', memory, model, prompt_version, judged, kept, last
FROM audit_judged
JOIN audit_judges USING (judge)
JOIN events AS asked ON asked.position = question
ORDER BY 1, 2, 3, 4, 5
"""


def rows(ledger: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(DRIVER.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        connection.execute("ATTACH ? AS audit", (f"file:{ledger.with_name(AUDIT_NAME)}?mode=ro",))
        found: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
        return found


def rounded(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows whose sums do not depend on the order in which they were made."""
    return [tuple(round(value, 9) if isinstance(value, float) else value for value in row) for row in found]


def check(ledger: Ledger) -> None:
    found = rows(ledger.path, "SELECT * FROM audit_decisions ORDER BY position")
    assert rounded(found) == rounded(rows(ledger.path, DECISIONS_OF_THE_VIEWS))
    assert rows(ledger.path, JUDGED_OF_THE_FILE) == rows(ledger.path, JUDGED_OF_THE_VIEWS)


@settings(deadline=None, max_examples=25)
@given(STEPS, STEPS, st.integers(5, 12), st.integers(1, 3))
def test_it_says_what_the_views_say(
    before: Sequence[Step], after: Sequence[Step], per_read: int, per_commit: int
) -> None:
    with pytest.MonkeyPatch.context() as patched, history(before) as ledger:
        patched.setattr(audit_index, "_EVENTS_PER_READ", per_read)
        patched.setattr(audit_index, "_READS_PER_COMMIT", per_commit)
        folder = ledger.path.parent
        bring_up_to_date(ledger.reader, folder)
        check(ledger)
        append_steps(ledger, after, len(before))
        if any(step[0] == "erase" for step in after):
            audit_index.remove(folder)  # as an erasure does
        done = bring_up_to_date(ledger.reader, folder)
        check(ledger)
        assert done.position == max(
            (event.position for event in ledger.reader.events_after(0, 10_000, audit_index._TYPES)), default=0
        )
        again = bring_up_to_date(ledger.reader, folder)
        assert (again.decisions, again.anew) == (0, False)
        continued = rows(ledger.path, JUDGED_OF_THE_FILE)
        audit_index.remove(folder)
        bring_up_to_date(ledger.reader, folder)
        assert rows(ledger.path, JUDGED_OF_THE_FILE) == continued


ANSWERS: Sequence[Step] = [("answer", "ann", "trip", seed) for seed in range(12)]


def test_it_is_for_its_owner_only_and_an_erasure_deletes_it(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        append_steps(ledger, ANSWERS)
        bring_up_to_date(ledger.reader, tmp_path)
        file = tmp_path / AUDIT_NAME
        assert file.stat().st_mode & 0o777 == 0o600
        assert b"ann" in file.read_bytes()
        erase_user(ledger, tmp_path, "ann")
        assert not list(tmp_path.glob(f"{AUDIT_NAME}*"))
        assert bring_up_to_date(ledger.reader, tmp_path).decisions == 0


def test_it_is_made_anew_for_a_ledger_that_is_not_the_one_it_was_made_of(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with opened(new_ledger_file(other)) as ledger:
        append_steps(ledger, ANSWERS)
        bring_up_to_date(ledger.reader, tmp_path)
    with opened(new_ledger_file(tmp_path)) as ledger:
        append_steps(ledger, ANSWERS[:3])
        assert bring_up_to_date(ledger.reader, tmp_path).anew
        check(ledger)


def test_a_file_that_is_no_database_is_named_with_what_to_do(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        append_steps(ledger, ANSWERS)
        (tmp_path / AUDIT_NAME).write_bytes(b"no database" * 1000)
        with pytest.raises(IndexUnavailable, match="delete it, and run the same command again"):
            bring_up_to_date(ledger.reader, tmp_path)
        (tmp_path / AUDIT_NAME).unlink()
        (tmp_path / f"{AUDIT_NAME}-journal").write_bytes(b"left over" * 100)
        bring_up_to_date(ledger.reader, tmp_path)
        check(ledger)


def test_a_version_of_other_tables_is_made_anew(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        append_steps(ledger, ANSWERS)
        bring_up_to_date(ledger.reader, tmp_path)
        with closing(DRIVER.connect(tmp_path / AUDIT_NAME)) as connection:
            connection.execute("UPDATE audit_checkpoint SET version = 0")
            connection.commit()
        assert bring_up_to_date(ledger.reader, tmp_path).anew
        check(ledger)


def test_an_answer_is_judged_once_however_the_pages_fall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        append_steps(ledger, ANSWERS)
        for per_read in range(5, 12):
            audit_index.remove(tmp_path)
            monkeypatch.setattr(audit_index, "_EVENTS_PER_READ", per_read)
            bring_up_to_date(ledger.reader, tmp_path)
            check(ledger)


def test_an_erasure_between_two_transactions_leaves_nothing_of_the_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_index, "_EVENTS_PER_READ", 8)
    monkeypatch.setattr(audit_index, "_READS_PER_COMMIT", 1)
    with opened(new_ledger_file(tmp_path)) as ledger:
        append_steps(ledger, [*ANSWERS, *[("answer", "bob", "trip", seed) for seed in range(3)]])
        erased: list[ErasedUser] = []

        def erase_once(_position: int) -> None:
            if not erased:
                erased.append(erase_user(ledger, tmp_path, "ann"))

        done = bring_up_to_date(ledger.reader, tmp_path, erase_once)
        assert done.anew
        assert b"ann" not in (tmp_path / AUDIT_NAME).read_bytes()
        check(ledger)
        assert done.decisions == len(rows(ledger.path, "SELECT 1 FROM audit_decisions")) == 3
