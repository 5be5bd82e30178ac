"""Miniatures of the data sets, in their own formats."""

from __future__ import annotations

import json
from pathlib import Path

LOCOMO = [
    {
        "sample_id": "talk-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Bob",
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": "I adopted a heron."},
                {"speaker": "Bob", "dia_id": "D1:2", "text": "What does it eat?"},
                {"speaker": "Ann", "dia_id": "D1:3", "text": "Small fish."},
            ],
            "session_2_date_time": "9:00 am on 1 June, 2023",
            "session_2": [{"speaker": "Bob", "dia_id": "D2:1", "text": "I bought a violin."}],
        },
        "qa": [
            {"question": "Which bird has Ann adopted?", "answer": "a heron", "evidence": ["D1:1"], "category": 4},
            {"question": "When did Bob buy a violin?", "answer": "June", "evidence": ["D2:1; D1:2"], "category": 2},
            {"question": "Who stole the violin?", "answer": "-", "evidence": ["D2:1"], "category": 5},
            {"question": "Unanswerable?", "answer": "-", "evidence": [], "category": 1},
        ],
    }
]
LONGMEMEVAL = [
    {
        "question_id": "q1",
        "question_type": "single-session-user",
        "question": "Which bird did I adopt?",
        "answer": "a heron",
        "question_date": "2023/06/02 (Fri) 10:00",
        "haystack_session_ids": ["s1", "s2"],
        "haystack_dates": ["2023/05/08 (Mon) 13:56", "2023/06/01 (Thu) 09:00"],
        "haystack_sessions": [
            [
                {"role": "user", "content": "I bought a violin."},
                {"role": "assistant", "content": "How nice."},
            ],
            [
                {"role": "user", "content": "I adopted a heron, a bird.", "has_answer": True},
                {"role": "assistant", "content": "What does it eat?"},
                {"role": "user", "content": "Fish."},
            ],
        ],
        "answer_session_ids": ["s2"],
    },
    {"question_id": "q2_abs", "question": "?", "haystack_session_ids": [], "haystack_dates": [],
     "haystack_sessions": [], "answer_session_ids": []},
]  # fmt: skip


def written(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data))
    return path
