"""What a request does with memory: everything that says something can only take away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidInput
from service.memory_mode import memory_mode

MODES = ("on", "read", "write", "off")
RECALLS, RECORDS = {"on", "read"}, {"on", "write"}


def test_without_a_word_memory_is_on() -> None:
    assert memory_mode() == "on"
    assert memory_mode(metadata={}, headers={}, store=True, chat_ids=("chat-1", None)) == "on"
    assert memory_mode(metadata={"memory": None}, headers={"x-opm-memory": ""}) == "on"


@pytest.mark.parametrize("mode", MODES)
def test_it_is_as_named(mode: str) -> None:
    assert memory_mode(metadata={"memory": mode}) == mode
    assert memory_mode(headers={"x-opm-memory": mode}) == mode
    assert memory_mode(metadata={"memory": f" {mode.upper()} "}) == mode


def test_what_is_not_to_be_stored_is_read_only() -> None:
    assert memory_mode(store=False) == "read"
    assert memory_mode(store=False, metadata={"memory": "on"}) == "read"


@pytest.mark.parametrize("chat_id", ["temporary:socket-1", "local:socket-1", "local:"])
def test_a_temporary_chat_is_off(chat_id: str) -> None:
    assert memory_mode(chat_ids=("chat-1", chat_id)) == "off"


@pytest.mark.parametrize("chat_id", ["my-local:1", "localhost", "temporary", "Local:1", "channel:1", ""])
def test_other_chats_are_not(chat_id: str) -> None:
    assert memory_mode(chat_ids=(chat_id,)) == "on"


def test_a_side_task_is_off_whatever_else_is_said() -> None:
    assert (
        memory_mode(metadata={"memory": "on"}, headers={"x-opm-memory": "on"}, store=True, is_side_task=True) == "off"
    )


@given(
    st.sampled_from([None, *MODES]),
    st.sampled_from([None, *MODES]),
    st.sampled_from([None, True, False]),
    st.booleans(),
    st.booleans(),
)
def test_the_strictest_wins(named: str | None, header: str | None, store: bool | None, chat: bool, task: bool) -> None:
    mode = memory_mode(
        metadata={"memory": named} if named is not None else {},
        headers={"x-opm-memory": header} if header is not None else {},
        store=store,
        chat_ids=("local:1",) if chat else ("chat",),
        is_side_task=task,
    )
    said = {named, header} - {None} | ({"read"} if store is False else set()) | ({"off"} if chat or task else set())
    assert (mode in RECALLS) == (said <= RECALLS)
    assert (mode in RECORDS) == (said <= RECORDS)


@pytest.mark.parametrize("value", ["yes", "true", "none", " ", True, False, 1, ["off"], {"memory": "off"}])
def test_a_mode_that_there_is_not_is_named_with_those_that_there_are(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^metadata\.memory = .*: send on, read, write or off"):
        memory_mode(metadata={"memory": value})


def test_the_header_is_named_as_it_is_written() -> None:
    with pytest.raises(InvalidInput, match=r"^X-OPM-Memory = 'never': send on, read, write or off"):
        memory_mode(headers={"x-opm-memory": "never"})


@pytest.mark.parametrize("value", ["false", 0, []])
def test_store_is_true_or_false(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^store = .*: send true or false"):
        memory_mode(store=value)
