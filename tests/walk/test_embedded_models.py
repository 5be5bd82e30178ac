"""The same promise on real models: the embedded ones, chat and embeddings, through the whole service."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from service.launch.command import EMBEDDED_PROFILE
from tests.embedded import embedded_models
from tests.processes import service_process
from tests.walk.conversation import ask

FACT = "My cat is called Miso and she only eats tuna."
OTHERS = ("The dentist moved my appointment to Thursday at nine.", "我的自行车停在图书馆后面。")


@pytest.mark.models
def test_a_fact_told_in_one_conversation_is_recalled_in_another(tmp_path: Path) -> None:
    with embedded_models() as (llm_base_url, emb_base_url):
        env = {
            **EMBEDDED_PROFILE,
            "STORAGE_DIR": str(tmp_path / "storage"),
            "LLM_BASE_URL": llm_base_url,
            "LLM_MODEL": "smollm2-135m-instruct",
            "EMB_BASE_URL": emb_base_url,
            "EMB_MODEL": "multilingual-e5-small",
        }
        with service_process(env) as service:
            dimension = httpx2.get(f"{service.base_url}/health/embed", trust_env=False).json()["dimension"]
            assert dimension == 384
            for number, told in enumerate((*OTHERS, FACT)):
                ask(service.base_url, told, f"told {number}")
            recalled = ask(service.base_url, "What does my cat eat?", "asked in English")
            assert recalled.replayed[0] == FACT
            assert recalled.text
            assert recalled.status["gate"] == {"strategy": "score", "outcome": "ok"}
            assert OTHERS[1] == ask(service.base_url, "我的自行车在哪里？", "asked in Chinese").replayed[0]

            service.kill9()
            service.start()
            assert FACT in ask(service.base_url, "Which food does Miso like?", "asked after a kill").replayed
