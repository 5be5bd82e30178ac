"""A prepared statement gives what SQLAlchemy would, and complains where something is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import bindparam, func, select

from domain.prepared import Prepared, as_list, each_of
from domain.schema import EVENTS
from domain.sqlite import DRIVER

TYPED = Prepared(
    select(EVENTS.c.position, func.upper(EVENTS.c.type).label("kind"))
    .where(
        EVENTS.c.user_id == bindparam("user_id"), EVENTS.c.type != "Other", EVENTS.c.position <= bindparam("upto", 9)
    )
    .order_by(EVENTS.c.position)
)
AT = Prepared(select(EVENTS.c.position).where(EVENTS.c.position.in_(each_of("positions"))))


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    with closing(DRIVER.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE events (position INTEGER PRIMARY KEY, user_id TEXT, type TEXT)")
        rows = [(1, "ann", "Said"), (2, "bob", "Said"), (3, "ann", "Other"), (4, "ann", "Heard"), (12, "ann", "Said")]
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        yield connection


def test_columns_are_attributes_and_constants_are_in(connection: Any) -> None:
    rows = TYPED.rows(connection, {"user_id": "ann"})
    assert [(row.position, row.kind) for row in rows] == [(1, "SAID"), (4, "HEARD")]
    assert rows == [(1, "SAID"), (4, "HEARD")]


def test_a_default_can_be_given(connection: Any) -> None:
    assert [row.position for row in TYPED.rows(connection, {"user_id": "ann", "upto": 12})] == [1, 4, 12]


@pytest.mark.parametrize("values", [{}, {"user": "ann"}])
def test_what_is_missing_is_complained_of(connection: Any, values: dict[str, object]) -> None:
    with pytest.raises(DRIVER.ProgrammingError, match="did not supply a value"):
        TYPED.rows(connection, values)


@given(positions=st.lists(st.integers(-(2**63), 2**63 - 1) | st.sampled_from([1, 2, 3, 4, 12])))
def test_a_list_of_any_length_is_one_value(connection: Any, positions: list[int]) -> None:
    found = [row.position for row in AT.rows(connection, {"positions": as_list(positions)})]
    assert sorted(found) == sorted({1, 2, 3, 4, 12} & set(positions))
