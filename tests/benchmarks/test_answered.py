"""Questions are answered by a service process, none of them knows of the others, and a judge's verdicts are counted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import answered, locomo, longmemeval
from domain.ledger_reader import LedgerReader
from domain.sqlite import open_engine
from tests.benchmarks.data import LOCOMO, LONGMEMEVAL, written
from tests.upstream import ChatRequest, Fault, Reply, ScriptedUpstream
from tests.upstream.responders import answer_from_memory, content_words

_GRADED = re.compile(r"Correct answer: (.*)\n\nAnswer to grade: (.*)", re.DOTALL)


def judge_by_words(request: ChatRequest) -> Reply:
    """Hold an answer for correct when it has every word of the right one."""
    found = _GRADED.search(request.user)
    assert found is not None
    right, said = (set(content_words(text)) for text in found.groups())
    return Reply(json.dumps({"correct": right <= said}))


def answer_or_judge(request: ChatRequest) -> Reply:
    return judge_by_words(request) if "Answer to grade:" in request.user else answer_from_memory(request)


@pytest.fixture(autouse=True)
def upstream(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ScriptedUpstream]:
    monkeypatch.chdir(tmp_path)
    with ScriptedUpstream(dims=64) as running:
        for name, value in (
            ("EMB_BASE_URL", running.base_url),
            ("EMB_MODEL", running.embedding_model),
            ("LLM_BASE_URL", running.base_url),
            ("LLM_MODEL", running.chat_model),
        ):
            monkeypatch.setenv(name, value)
        yield running


def accuracies(told: str) -> dict[str, list[str]]:
    """Return the table's rows by category: questions, correct, accuracy."""
    rows = [line for line in told.splitlines() if re.search(r"\d\.\d{3}$", line)]
    return {row[:24].strip(): row[24:].split()[:3] for row in rows}


@pytest.mark.parametrize(
    ("answer", "gold", "f1"),
    [("A heron.", "the heron", 1), ("It was a heron", "heron", 0.5), ("Fish", "heron", 0), ("", "heron", 0)],
)
def test_words_in_common(answer: str, gold: str, f1: float) -> None:
    assert answered.words_f1(answer, gold) == pytest.approx(f1)


def test_locomo_answered_and_judged_by_another_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], upstream: ScriptedUpstream
) -> None:
    storage = tmp_path / "kept"
    with ScriptedUpstream(chat_model="judge") as judge:
        judge.responders["answer"] = judge_by_words
        judged = ["--judge-base-url", judge.base_url, "--judge-model", "judge"]
        locomo.main(["--data", str(written(tmp_path, LOCOMO)), "--answer", "--storage", str(storage), *judged])
        formats = [call.body["response_format"]["json_schema"]["name"] for call in judge.calls_of("answer")]
    told = capsys.readouterr().out
    assert "judged by judge" in told
    assert accuracies(told) == {
        "single-hop": ["1", "1", "1.000"],
        # It said "I bought a violin.", and not when.
        "temporal": ["1", "0", "0.000"],
        "all": ["2", "1", "0.500"],
    }
    assert formats == ["verdict", "verdict"]
    first, second = ["\n".join(m["content"] for m in c.body["messages"]) for c in upstream.calls_of("answer")]
    assert "Today is 2023-06-01." in first
    assert "I adopted a heron." in first
    assert "I bought a violin." in second
    assert "Which bird has Ann adopted?" not in second, "no question is a memory of the next one's"
    assert not upstream.calls_of("summary"), "memory stays as it was recorded"
    engine = open_engine(storage / "ledger.sqlite3", writer=False)
    types = {event.payload.type for event in LedgerReader(engine).events_after(0, 1000)}
    engine.dispose()
    assert types == {"TurnRecorded", "EmbeddingModelActivated"}, "the questions were asked of a copy"


def test_longmemeval_answered_and_judged_by_the_service_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], upstream: ScriptedUpstream
) -> None:
    upstream.responders["answer"] = answer_or_judge
    longmemeval.main(["--data", str(written(tmp_path, LONGMEMEVAL)), "--answer"])
    told = capsys.readouterr().out
    assert accuracies(told) == {"single-session-user": ["1", "1", "1.000"], "all": ["1", "1", "1.000"]}
    assert re.search(r"tokens a question: [1-9]\d* read and [1-9]\d* written", told)


def test_an_answer_that_does_not_come_and_a_verdict_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], upstream: ScriptedUpstream
) -> None:
    upstream.fail("answer", Fault(status=400), Fault(), Fault(content="Well."))
    locomo.main(["--data", str(written(tmp_path, LOCOMO)), "--answer"])
    told = capsys.readouterr()
    assert accuracies(told.out)["all"] == ["2", "0", "0.000"]
    assert "no answer: 1, memory degraded: 0, no verdict (counted as not correct): 2" in told.out
    assert "scripted failure" in told.err
