"""An answer is read beside the page, can be stopped at any moment, and always ends."""

from __future__ import annotations

import socket

import pytest

from frontend.backend import Backend, ChatRequest
from frontend.backend_errors import AnswerBrokenError, BackendUnreachableError, UnreadableAnswerError
from frontend.knobs import KNOBS
from frontend.live_answer import AnswerSnapshot, LiveAnswer
from frontend.settings import FrontendSettings
from tests.frontend.scripted_backend import REQUEST_ID, ScriptedBackend, some_history

WAIT_S = 60.0


def ask(url: str) -> LiveAnswer:
    request = ChatRequest("ada", "c-1", "What am I allergic to?", "m", {knob.name: knob.default for knob in KNOBS})
    return LiveAnswer(Backend(FrontendSettings(backend_url=url)), request)


def ended(live: LiveAnswer) -> AnswerSnapshot:
    answer = live.snapshot()
    while answer.state == "running":
        seen = answer.version
        answer = live.wait(seen, WAIT_S)
        assert answer.version != seen, "the answer did not end"
    return answer


def test_an_answer_is_read_to_its_end(backend: ScriptedBackend) -> None:
    backend.retrieved = some_history()
    live = ask(backend.url)
    live.start()
    answer = ended(live)
    assert (answer.state, answer.text) == ("done", "Peanuts, you told me in November.")
    assert answer.retrieved is not None
    assert [memory.raw_user for memory in answer.retrieved.replay] == ["I am allergic to peanuts."]
    assert answer.turn is not None
    assert (answer.turn.turn_id, answer.finish_reason, answer.request_id) == (1, "stop", REQUEST_ID)


def test_stopping_hangs_up_and_keeps_what_has_come(backend: ScriptedBackend) -> None:
    backend.hold_after = 2
    live = ask(backend.url)
    live.start()
    assert backend.held.wait(WAIT_S)
    while live.snapshot().text != "Peanuts, you told me ":
        live.wait(live.snapshot().version, WAIT_S)
    live.stop()
    assert ended(live).state == "stopped"
    assert live.snapshot().text == "Peanuts, you told me "
    assert backend.hung_up.wait(WAIT_S), "the service did not notice"
    assert backend.turns == {}


def test_stopping_before_the_first_word_hangs_up_too(backend: ScriptedBackend) -> None:
    backend.hold_after = 0
    live = ask(backend.url)
    live.start()
    assert backend.held.wait(WAIT_S)
    live.stop()
    assert (ended(live).state, live.snapshot().text) == ("stopped", "")
    assert backend.hung_up.wait(WAIT_S)


def test_stopping_before_the_start_sends_nothing(backend: ScriptedBackend) -> None:
    live = ask(backend.url)
    live.stop()
    live.start()
    assert ended(live).state == "stopped"
    assert backend.requests == []


def test_stopping_twice_or_after_the_end_changes_nothing(backend: ScriptedBackend) -> None:
    live = ask(backend.url)
    live.start()
    done = ended(live)
    live.stop()
    live.stop()
    assert live.snapshot() == done


def test_a_line_separator_inside_the_answer_is_text(backend: ScriptedBackend) -> None:
    backend.pieces = ["one\u2028two\u0085three"]
    live = ask(backend.url)
    live.start()
    assert (ended(live).state, live.snapshot().text) == ("done", "one\u2028two\u0085three")


def test_an_error_in_the_middle_keeps_the_beginning(backend: ScriptedBackend) -> None:
    backend.break_after = 1
    live = ask(backend.url)
    live.start()
    answer = ended(live)
    assert (answer.state, answer.text) == ("failed", "Peanuts, ")
    assert isinstance(answer.error, AnswerBrokenError)
    assert (answer.error.said, answer.error.request_id) == ("The model went away.", REQUEST_ID)


def test_nothing_listening_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    live = ask(f"http://127.0.0.1:{port}")
    live.start()
    assert isinstance(ended(live).error, BackendUnreachableError)


def test_another_service_at_the_address_is_told_apart(backend: ScriptedBackend) -> None:
    live = ask(f"{backend.url}/elsewhere")
    live.start()
    assert isinstance(ended(live).error, UnreadableAnswerError)


@pytest.mark.parametrize("version", [0, 1])
def test_waiting_returns_at_once_for_a_change_already_made(backend: ScriptedBackend, version: int) -> None:
    live = ask(backend.url)
    live.start()
    last = ended(live).version
    assert live.wait(version, WAIT_S).version == last
