"""The service with commits that do not wait for the disk: the control of :mod:`tests.faults.power_cuts`."""

from typing import Any

from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.pool import Pool

from service.app import _app_from_environment


@event.listens_for(Pool, "checkout")
def _do_not_wait(connection: Any, _record: Any, _proxy: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


app: FastAPI = _app_from_environment()
