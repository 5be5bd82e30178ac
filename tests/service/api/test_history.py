"""A person finds their conversations and turns again, and nobody else's."""

from __future__ import annotations

from datetime import datetime

from tests.service.running import Running, someone
from tests.upstream import Fault


def test_conversations_are_listed_newest_first(service: Running, user: str) -> None:
    service.client.tell("  First of\nall.", user, "one")
    service.client.tell("Elsewhere.", user, "two")
    service.client.tell("Again here.", user, "one")
    listed = service.client.get("/v1/conversations", user=user).json()
    assert listed["object"] == "list"
    assert [(row["conversation_id"], row["turns"], row["title"]) for row in listed["data"]] == [
        ("one", 2, "First of all."),
        ("two", 1, "Elsewhere."),
    ]
    moments = [datetime.fromisoformat(row["last_ts"]) for row in listed["data"]]
    assert moments == sorted(moments, reverse=True)
    assert [
        row["conversation_id"] for row in service.client.get("/v1/conversations", user=user, limit=1).json()["data"]
    ] == ["one"]


def test_turns_are_listed_oldest_first_and_can_be_paged(service: Running, user: str) -> None:
    told = [service.client.tell(f"Remark {n}.", user, "one") for n in range(1, 6)]
    rows = service.client.get("/v1/turns", user=user, conversation_id="one").json()["data"]
    assert [(row["turn_id"], row["user"], row["assistant"]) for row in rows] == [
        (n, f"Remark {n}.", answer.text) for n, answer in enumerate(told, 1)
    ]
    assert [row["memory_id"] for row in rows] == [answer.memory("turn")["memory_id"] for answer in told]
    assert all(datetime.fromisoformat(row["ts"]).tzinfo is not None for row in rows)
    newest = service.client.get("/v1/turns", user=user, conversation_id="one", limit=2).json()["data"]
    assert [row["turn_id"] for row in newest] == [4, 5]
    before = service.client.get("/v1/turns", user=user, conversation_id="one", limit=2, before_turn=4).json()["data"]
    assert [row["turn_id"] for row in before] == [2, 3]


def test_how_a_turn_ended_is_told(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(finish_reason="length"))
    service.client.tell("Hello.", user, "one")
    [row] = service.client.get("/v1/turns", user=user, conversation_id="one").json()["data"]
    assert row["finish_reason"] == "length"


def test_how_memory_worked_is_told_again(service: Running, user: str) -> None:
    service.tell_all(["We ate in Lisbon.", "My cat is called Miso."], user)
    told = [service.client.tell("Where did we eat last week?", user, "one")]
    service.upstream.fail_always("embed", Fault(status=500))
    told.append(service.client.tell("And who is Miso?", user, "one"))
    service.upstream.heal("embed")
    rows = service.client.get("/v1/turns", user=user, conversation_id="one").json()["data"]
    assert [row["memory_status"] for row in rows] == [answer.memory("memory_status") for answer in told]
    assert [row["retrieved"] for row in rows] == [answer.memory("retrieved") for answer in told]
    assert rows[0]["memory_status"]["time_range"]["phrase"] == "last week"
    assert rows[1]["memory_status"]["notice"].startswith("Long-term memory was searched by words only: ")


def test_a_turn_that_failed_is_not_listed(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(status=500))
    assert service.client.ask("Hello.", user, "one").status == 502
    assert service.client.get("/v1/turns", user=user, conversation_id="one").json()["data"] == []
    assert service.client.get("/v1/conversations", user=user).json()["data"] == []


def test_each_user_sees_their_own_alone(service: Running, user: str) -> None:
    other = someone()
    service.client.tell("Mine.", user, "shared name")
    service.client.tell("Theirs.", other, "shared name")
    for who, said in ((user, "Mine."), (other, "Theirs.")):
        turns = service.client.get("/v1/turns", user=who, conversation_id="shared name").json()["data"]
        assert [turn["user"] for turn in turns] == [said]
        assert [row["title"] for row in service.client.get("/v1/conversations", user=who).json()["data"]] == [said]
    for stranger in (someone(), user.upper(), f"{user} x", f"{user}%", "*"):
        assert service.client.get("/v1/turns", user=stranger, conversation_id="shared name").json()["data"] == []
        assert service.client.get("/v1/conversations", user=stranger).json()["data"] == []


def test_without_names_it_is_anonymous_default(service: Running) -> None:
    said = f"I am {someone()}."
    service.client.post({"messages": [{"role": "user", "content": said}]})
    assert service.client.get("/v1/turns").json()["data"][-1]["user"] == said
    assert "default" in [row["conversation_id"] for row in service.client.get("/v1/conversations").json()["data"]]
