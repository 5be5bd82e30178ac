"""Many clients on two services over one storage: what one acknowledges, the other must not lose, double or renumber.

Each person has clients on both services, in the same few conversations. So both processes append to the same streams,
and one of them does the background work for what the other answered.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from domain.events import SummaryRecorded, TurnRecorded
from tests.faults.checks import verified, wrong_with_ledger
from tests.faults.load import Acknowledged, Load
from tests.processes import service_process
from tests.service.opm import environment
from tests.service.running import LedgerView, until
from tests.upstream import ScriptedUpstream

_PATIENCE_S = 300.0
"""For the background work of minutes, on a machine that has other work."""


@dataclass
class TwoServices:
    """What came of a run; ``refused`` and ``broken`` count the turns that were not acknowledged."""

    acknowledged: int = 0
    refused: int = 0
    broken: int = 0
    wrong: list[str] = field(default_factory=list)


def two_services(folder: Path, *, users: int, clients_of_each: int, seconds: float) -> TwoServices:
    """Let people chat through two services for a while, each with several clients at once."""
    storage, done = folder / "storage", TwoServices()
    storage.mkdir()
    with ScriptedUpstream(keep_bodies=False) as upstream:
        env = environment(storage, upstream)
        with service_process(env) as one, service_process(env) as other:
            load = Load([one.base_url, other.base_url], lambda: 0, users, clients_of_each)
            with load.running():
                time.sleep(seconds)
            done.acknowledged, done.refused, done.broken = len(load.acknowledged), load.refused, load.broken
            with closing(LedgerView(storage / "ledger.sqlite3")) as view:
                until("all is summarised", lambda: not view.reader.count_turns_without_summary(0), _PATIENCE_S)
            until("the mirror is at the head", lambda: not verified(storage)["mirror"]["behind"], _PATIENCE_S)
            one.terminate()
            other.terminate()
    done.wrong = wrong_with_ledger(storage, load.acknowledged)
    done.wrong += [str(finding) for finding in verified(storage)["findings"]]
    done.wrong += _unlike_the_answers(storage, load.acknowledged)
    return done


def _unlike_the_answers(storage: Path, acknowledged: Sequence[Acknowledged]) -> list[str]:
    """Return what the ledger says otherwise than the clients were told, and who was summarised twice."""
    with closing(LedgerView(storage / "ledger.sqlite3")) as view:
        events = view.reader.events_after(0, 1_000_000, (TurnRecorded.type, SummaryRecorded.type))
    turns = {event.event_id: event.payload for event in events if isinstance(event.payload, TurnRecorded)}
    wrong = []
    for told in acknowledged:
        turn = turns.get(told.memory_id)
        if turn is not None and (turn.user, turn.turn_id) != (told.question, told.turn_id):
            wrong.append(f"turn {told.memory_id} is recorded as {turn.turn_id}, {turn.user!r}: not as it was answered")
    summaries = Counter(event.payload.memory_id for event in events if isinstance(event.payload, SummaryRecorded))
    return wrong + [f"turn {memory_id} has {count} summaries" for memory_id, count in summaries.items() if count > 1]
