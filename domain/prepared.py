"""Statements compiled once and run by the driver itself.

SQLAlchemy checks and converts much on the way of each execution. A turn asks the ledger seven questions, and between
two turns all of that code has left the processor's caches: the smallest question then takes 0.5 ms, and 0.2 to 0.3 by
the driver alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import bindparam, column, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import ClauseElement, Select
from sqlalchemy.sql.compiler import SQLCompiler

_DIALECT = sqlite.dialect(paramstyle="named")


class Prepared:
    """A statement of SQLAlchemy Core as text, its constants beside it. What varies is given with each run, by name."""

    def __init__(self, statement: ClauseElement) -> None:
        compiled = statement.compile(dialect=_DIALECT)
        assert isinstance(compiled, SQLCompiler)
        self.sql = str(compiled)
        # Whatever has to be given with a run is left out, so that the driver complains where it is not.
        self._constants = {name: value for name, value in compiled.params.items() if not compiled.binds[name].required}
        names = [str(each.key) for each in statement.selected_columns] if isinstance(statement, Select) else []
        columns = {name: property(itemgetter(at)) for at, name in enumerate(names)}
        self._row: type[Any] = type("Row", (tuple,), {"__slots__": (), **columns})

    def execute_many(self, connection: Any, rows: Sequence[Mapping[str, object]]) -> None:
        """Run the statement once for each of ``rows``, which give all that it takes."""
        connection.executemany(self.sql, rows).close()

    def rows(self, connection: Any, values: Mapping[str, object]) -> list[Any]:
        """Return all rows of a ``SELECT``, each with its columns as attributes."""
        return list(map(self._row, connection.execute(self.sql, {**self._constants, **values}).fetchall()))


def each_of(name: str) -> Select[Any]:
    """Select the members of a list given as JSON, for ``IN``: of any length it is one parameter of one statement."""
    members = func.json_each(bindparam(name)).table_valued(column("value"))
    return select(members.c.value)


def as_list(members: Iterable[int]) -> str:
    """Return what :func:`each_of` takes."""
    return json.dumps(list(members))
