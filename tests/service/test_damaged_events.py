"""A damaged event costs itself: it is named, and lists, turns, followers and commands go on without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from domain import rows
from domain.events import TurnRecorded
from domain.sqlite import DRIVER
from projections.verification.storage import verify_storage
from service.settings import ServiceSettings
from tests.service.opm import environment, opm
from tests.service.running import running
from tests.upstream import ScriptedUpstream

FACTS = ("My cat is called Miso.", "My dog is called Bruno.", "My bird is called Kiwi.")
PAYLOADS = {
    "cut short": "CAST(substr(payload, 1, length(payload) / 2) AS TEXT)",
    "no JSON": "'my secret: ]'",
    "not UTF-8": "CAST(x'7b22' || CAST('my secret' AS BLOB) || x'ff00fe' AS TEXT)",
    "half of a character in a text": "CAST(CAST(replace(payload, 'called', '') AS BLOB) || x'e4bd' AS TEXT)",
    "a list": "'[1]'",
    "null": "'null'",
    "another shape": """'{"user": 7, "turn_id": "x"}'""",
    "nested": f"'{'[' * 5000}'",
    "empty": "''",
}
KINDS = ("SummaryRecorded", "RetrievalRecorded", "GateDecided", "RerankDecided", "PromptsActivated")
CASES = [
    *(("TurnRecorded", what, True) for what in PAYLOADS),
    *(("TurnRecorded", what, False) for what in ("cut short", "not UTF-8", "another shape")),
    *((kind, what, False) for kind in KINDS for what in ("cut short", "not UTF-8", "another shape")),
]
"""Which kind of event is damaged, how, and whether the projections of before are there."""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedUpstream, Path]]:
    """A storage folder in which a user has told three things in one conversation and asked for one in another."""
    with ScriptedUpstream() as upstream:
        storage = tmp_path_factory.mktemp("told")
        with running(upstream, storage) as service:
            for fact in FACTS:
                service.client.tell(fact, "ann", "pets")
            service.client.tell("How is my dog called?", "ann", "asked")
            service.settle()
        yield upstream, storage


def damaged(storage: Path, kind: str, expression: str) -> int:
    """Damage the second event of a kind, or the only one, as a disk would; return its position."""
    with closing(DRIVER.connect(storage / "ledger.sqlite3", isolation_level=None)) as connection:
        # Of the indices those that refuse to take in such a payload.
        guards = (
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL "
            "AND (type = 'trigger' OR sql LIKE '%>>%' AND sql NOT LIKE '%json_valid%')"
        )
        kept = [guard for guard in connection.execute(guards).fetchall() if guard[0] in {"trigger", "index"}]
        for what, name, _ in kept:
            connection.execute(f"DROP {what} {name}")
        found = connection.execute("SELECT position FROM events WHERE type = ? ORDER BY position", (kind,)).fetchall()
        position = found[1 if len(found) > 1 else 0][0]
        connection.execute(f"UPDATE events SET payload = {expression} WHERE position = ?", (position,))  # noqa: S608
        for what, _, sql in kept:
            if what == "trigger":
                connection.execute(sql)
    return int(position)


def copied(storage: Path, target: Path, projections: bool) -> Path:
    for file in storage.rglob("*"):
        if file.is_file() and (projections or file.name == "ledger.sqlite3"):
            (target / file.relative_to(storage)).parent.mkdir(parents=True, exist_ok=True)
            (target / file.relative_to(storage)).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize(("kind", "what", "projections"), CASES)
def test_one_damaged_event_costs_itself(
    told: tuple[ScriptedUpstream, Path], tmp_path: Path, kind: str, what: str, projections: bool
) -> None:
    upstream, source = told
    rows._name_damaged.cache_clear()
    storage = copied(source, tmp_path / "storage", projections)
    position = damaged(storage, kind, PAYLOADS[what])
    with running(upstream, storage) as service:
        conversations = service.client.get("/v1/conversations", user="ann").json()["data"]
        assert {each["conversation_id"] for each in conversations} == {"pets", "asked"}
        memories = service.client.get("/v1/memories", user="ann").json()["data"]
        lost = kind == "TurnRecorded"
        assert len(memories) == 4 - lost
        for conversation, turns in (("pets", 3 - lost), ("asked", 1)):
            shown = service.client.get("/v1/turns", user="ann", conversation_id=conversation).json()["data"]
            assert len(shown) == turns
        for conversation in ("pets", "new"):
            answer = service.client.tell("How is my bird called?", "ann", conversation, stream=True)
            assert answer.finish_reason == "stop"
            assert answer.memory("memory_status")["retrieval"] == "ok"
        service.settle()
        assert all(not follower.failing for follower in service.services.followers.values())
        if kind != "GateDecided" and kind != "RerankDecided":
            assert f"event {position} ({kind}) is damaged and left out" in service.log()
        assert "secret" not in service.log()
        settings = service.services.settings
        last = service.ledger.all(TurnRecorded, "ann", "new")[-1]
        assert last.user == "How is my bird called?"
    everything_else_is_told(storage, settings, position)


def everything_else_is_told(storage: Path, settings: ServiceSettings, position: int) -> None:
    variables = environment(storage)
    with closing(DRIVER.connect(storage / "ledger.sqlite3")) as connection:
        ids: list[Any] = connection.execute(
            "SELECT DISTINCT correlation_id FROM events WHERE user_id = 'ann' AND type = 'RetrievalRecorded'"
        ).fetchall()
    for (correlation_id,) in ids:
        assert opm(variables, "explain", correlation_id).status in {0, 1}
    assert opm(variables, "explain", "--last", "-u", "ann").status == 0
    assert opm(variables, "recall", "-u", "ann", "bird", "--no-embed").status == 0
    lines = opm(variables, "export", "-u", "ann").out.split("\n")[:-1]
    assert len([json.loads(line) for line in lines]) > 10
    changed = [finding.position for finding in verify_storage(settings).findings if finding.part == "ledger"]
    assert changed == [position]
