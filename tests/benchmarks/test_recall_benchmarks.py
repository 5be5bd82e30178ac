"""The benchmarks of recall read their data sets' formats and measure through the service's own search."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import locomo, longmemeval, ranks, score_gate
from benchmarks.key_sets import KEY_SETS, KeySet
from benchmarks.locomo_data import read_talks
from benchmarks.remembered import Said, remembered
from domain.fusion import Fusion
from tests.benchmarks.data import LOCOMO, LONGMEMEVAL, written
from tests.memories import memory, ranked
from tests.upstream import ScriptedUpstream


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ScriptedUpstream]:
    monkeypatch.chdir(tmp_path)
    with ScriptedUpstream(dims=64, embedding_models=("emb",)) as upstream:
        monkeypatch.setenv("EMB_BASE_URL", upstream.base_url)
        monkeypatch.setenv("EMB_MODEL", "emb")
        yield upstream


@pytest.mark.parametrize("unit", ["line", "pair"])
def test_locomo(tmp_path: Path, capsys: pytest.CaptureFixture[str], unit: str) -> None:
    locomo.main(["--data", str(written(tmp_path, LOCOMO)), "--unit", unit, "--gate", "score"])
    told = capsys.readouterr().out
    assert told.startswith("2 questions")
    served = next(line for line in told.splitlines() if line.startswith("hybrid (as served)"))
    assert served.split()[3:6] == ["1.000"] * 3, "all is among the first five of four lines"
    assert "evidence 1.000 among" in told


def test_locomo_with_the_gate_of_the_chat_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, endpoint: ScriptedUpstream
) -> None:
    monkeypatch.setenv("LLM_BASE_URL", endpoint.base_url)
    monkeypatch.setenv("LLM_MODEL", endpoint.chat_model)
    locomo.main(["--data", str(written(tmp_path, LOCOMO)), "--gate", "llm", "--limit", "1"])
    told = capsys.readouterr().out
    assert len(endpoint.calls_of("gate")) == 1
    assert "gate llm, 1 questions (1 ok)" in told
    assert "s a call" in told


def test_locomo_by_key_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str], endpoint: ScriptedUpstream) -> None:
    path = str(written(tmp_path, LOCOMO))
    locomo.main(["--data", path, "--unit", "pair", "--keys"])
    told = capsys.readouterr().out
    recalls = {line[:40].strip(): line[40:].split()[0] for line in told.splitlines() if line.startswith("dense, ")}
    # Half of the evidence is what somebody replied, which lies outside a memory that is found by its questions only.
    assert recalls == {
        "dense, user": "1.000",
        "dense, assistant": "0.750",
        "dense, exchange": "1.000",
        "dense, user or assistant": "1.000",
        "dense, exchange or user": "1.000",
        "dense, exchange or assistant": "1.000",
    }
    endpoint.forget_calls()
    locomo.main(["--data", path, "--unit", "line", "--keys"])
    told = capsys.readouterr().out
    assert "dense, exchange" in told
    assert "dense, user" not in told, "where nobody replies, it would be the same"


def test_a_key_set_gives_each_index_its_texts(tmp_path: Path) -> None:
    said = [Said("c", datetime(2023, 5, 8, tzinfo=UTC), "I adopted a heron.", "A bird!")]
    environment = {name: os.environ[name] for name in ("EMB_BASE_URL", "EMB_MODEL")}

    async def found_by(key_set: KeySet, question: str) -> list[str | None]:
        async with remembered(tmp_path / key_set.name, environment, key_set=key_set) as recorded:
            await recorded.record("ann", said)
            found = await recorded.search(Fusion()).search("ann", question, 5, "lexical")
            return [candidate.memory.assistant for candidate in found.candidates]

    by_name = {key_set.name: key_set for key_set in KEY_SETS}
    for name, by_user, by_assistant in (("user", 1, 0), ("assistant", 0, 1), ("user or assistant", 1, 1)):
        assert len(asyncio.run(found_by(by_name[name], "heron"))) == by_user
        assert len(asyncio.run(found_by(by_name[name], "bird"))) == by_assistant


def test_locomo_in_lines_and_pairs(tmp_path: Path) -> None:
    path = written(tmp_path, LOCOMO)
    [lines], [pairs] = read_talks(path, lines_per_turn=1), read_talks(path)
    assert [exchange.text.strip() for exchange in lines.exchanges][:2] == [
        "Ann: I adopted a heron.",
        "Bob: What does it eat?",
    ]
    assert (len(lines.exchanges), len(pairs.exchanges)) == (4, 3)
    assert [question.evidence for question in lines.questions] == [{0}, {3, 1}]
    assert [question.evidence for question in pairs.questions] == [{0}, {2, 0}]


def test_longmemeval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, LONGMEMEVAL)
    [item] = longmemeval.read_items(path)
    assert [turn.user for turn in item.turns] == ["I bought a violin.", "I adopted a heron, a bird.", "Fish."]
    assert item.session_of == (0, 1, 1)
    assert (item.sessions, item.evidence) == (frozenset({1}), frozenset({1}))
    longmemeval.main(["--data", str(path)])
    told = capsys.readouterr().out
    assert "by session, 1 questions" in told
    served = next(line for line in told.splitlines() if line.startswith("hybrid (as served)"))
    assert served.split()[3:8] == ["1.000"] * 5


def test_figures() -> None:
    ranked, evidence = [7, 3, 9, 1], {3, 1, 5}
    assert ranks.recall(ranked, evidence, 2) == pytest.approx(1 / 3)
    assert (ranks.recall_any(ranked, evidence, 1), ranks.recall_any(ranked, evidence, 2)) == (0, 1)
    assert (ranks.recall_all(ranked, evidence, 4), ranks.recall_all(ranked, {3, 1}, 4)) == (0, 1)
    assert ranks.reciprocal_rank(ranked, evidence) == 0.5
    assert ranks.ndcg([3, 1, 5], evidence, 10) == pytest.approx(1)
    assert 0 < ranks.ndcg(ranked, evidence, 10) < 1
    assert ranks.without_repeats([2, 1, 2]) == [2, 1]


def test_score_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [talk] = LOCOMO
    renamed = json.loads(json.dumps(talk).replace("Ann", "Cleo").replace("Bob", "Dan").replace("talk-1", "talk-2"))
    score_gate.main(["--data", str(written(tmp_path, [talk, renamed]))])
    told = capsys.readouterr().out
    for mode in score_gate.MODES:
        assert f"== {mode} ==" in told
    rows = [line.split() for line in told.splitlines() if line.startswith(("English", "Chinese", "talk-"))]
    assert len(rows) == 4 * len(score_gate.MODES)
    assert all(float(row[-1]) > 0 for row in rows), "something is kept, the more so the better the model"
    assert "best cosine                             of others, renamed" in told


def test_the_floor_of_a_sign_costs_at_most_the_evidence_it_may() -> None:
    def decided(cosine: float) -> score_gate.Decided:
        candidate = replace(ranked([memory(1)])[0], dense_score=cosine)
        return score_gate.Decided((candidate,), (True,), (True,), answerable=True)

    hundred = [decided(at / 100) for at in range(100)]
    assert score_gate.floor_for(score_gate.SIGNS["best cosine"], hundred) == 0.02
    assert score_gate.floor_for(score_gate.SIGNS["best cosine"], hundred[:10]) == 0
