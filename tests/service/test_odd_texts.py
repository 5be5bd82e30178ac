"""Characters that cut texts short elsewhere do not here: such a text is found, exported, imported and erased whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domain.events import TurnRecorded
from tests.byte_search import traces
from tests.service.opm import environment, opm
from tests.service.running import Running

ODD = {
    "NUL": "\x00",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "next line": "\u0085",
    "right-to-left override": "\u202e",
    "isolate": "\u2067",
    "private use": "\ue000",
    "private plane": "\U0010fffd",
    "not a character": "\ufffe",
    "byte order mark": "\ufeff",
    "escape": "\x1b[31m",
    "carriage return": "\r",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("stream", [False, True])
def test_an_odd_text_is_kept_whole(service: Running, user: str, tmp_path: Path, odd: str, stream: bool) -> None:
    token = f"zq{user[-8:]}"
    said = f"My locker {odd}{token}{odd} has code 4711{odd}."
    service.client.tell(said, user, "monday", stream=stream)
    service.settle()
    assert service.ledger.all(TurnRecorded, user, "monday")[0].user == said

    for mode in ("hybrid", "dense", "lexical"):
        answer = service.client.tell(f"locker {token}", user, mode, stream=stream, retrieval=mode, use_gate=False)
        assert said in answer.replayed
    (listed,) = service.client.get("/v1/turns", user=user, conversation_id="monday").json()["data"]
    assert listed["user"] == said

    storage, file = service.ledger.path.parent, tmp_path / "export.jsonl"
    variables = environment(storage)
    assert opm(variables, "export", "-u", user, "-o", str(file)).status == 0
    lines = file.read_bytes().decode().split("\n")
    assert any(_holds(json.loads(line), said) for line in lines if line)
    elsewhere = environment(tmp_path / "elsewhere")
    assert opm(elsewhere, "import", str(file), "-u", "ann").status == 0
    again = opm(elsewhere, "recall", "-u", "ann", f"locker {token}", "--no-embed", "--json")
    assert said in [memory["user"] for memory in again.json["memories"]]
    assert opm(variables, "explain", "--last", "-u", user).status == 0

    assert opm(variables, "erase", "-u", user, "--yes").status == 0
    service.settle()
    assert traces(storage, [token]) == []


def _holds(value: object, text: str) -> bool:
    if isinstance(value, str):
        return value == text
    if isinstance(value, dict):
        return any(_holds(each, text) for each in value.values())
    return isinstance(value, list) and any(_holds(each, text) for each in value)
