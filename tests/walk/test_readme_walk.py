"""The walk of the README: told once, remembered after a new chat, a kill, lost projections and another embedder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.frontend.chat_browser import ChatBrowser, chromium, required_chromium, running_page
from tests.ledgers import ROOT
from tests.processes import service_process
from tests.upstream import ScriptedUpstream
from tests.walk.conversation import ask

FACT = "My cat is called Miso and she only eats tuna."
QUESTION = "What does my cat eat?"
OTHER_MODEL = "another-embedding"


def test_a_fact_survives_everything_that_can_be_deleted(tmp_path: Path) -> None:
    with ScriptedUpstream(embedding_models=("scripted-embedding", OTHER_MODEL)) as upstream:
        env = {
            "STORAGE_DIR": str(tmp_path / "storage"),
            "LLM_BASE_URL": upstream.base_url,
            "LLM_MODEL": upstream.chat_model,
            "EMB_BASE_URL": upstream.base_url,
            "EMB_MODEL": upstream.embedding_model,
        }
        with service_process(env) as service:
            ask(service.base_url, FACT, "kitchen")
            assert FACT in ask(service.base_url, QUESTION, "after a new chat").replayed
            assert ask(service.base_url, QUESTION, "kitchen", user="eve").replayed == []

            service.kill9()
            service.start()
            assert FACT in ask(service.base_url, QUESTION, "after a kill").replayed

            service.kill9()
            shutil.rmtree(tmp_path / "storage" / "users")
            service.start()
            assert FACT in ask(service.base_url, QUESTION, "after the loss of the projections").replayed
            mirror = tmp_path / "storage" / "users" / "ann" / "conversations" / "kitchen.jsonl"
            assert FACT in mirror.read_text(encoding="utf-8")

            service.restart({"EMB_MODEL": OTHER_MODEL})
            swapped = ask(service.base_url, QUESTION, "after a model swap")
            assert FACT in swapped.replayed
            assert "python -m projections.rebuild" in swapped.status["notice"]

            rebuild = [sys.executable, "-m", "projections.rebuild"]
            environment = {**env, "EMB_MODEL": OTHER_MODEL, "PYTHONPATH": str(ROOT)}
            subprocess.run(rebuild, env=environment, cwd=tmp_path, check=True, capture_output=True)
            assert FACT in ask(service.base_url, QUESTION, "after the rebuild").replayed


@pytest.mark.browser
def test_a_person_is_remembered_in_a_new_chat(tmp_path: Path) -> None:
    path = required_chromium()
    with ScriptedUpstream() as upstream:
        env = {
            "STORAGE_DIR": str(tmp_path / "storage"),
            "LLM_BASE_URL": upstream.base_url,
            "LLM_MODEL": upstream.chat_model,
            "EMB_BASE_URL": upstream.base_url,
            "EMB_MODEL": upstream.embedding_model,
        }
        with (
            service_process(env) as service,
            running_page(service.base_url, tmp_path / "streamlit.log") as url,
            chromium(path) as browser,
        ):
            chat = ChatBrowser(browser.new_page(), f"{url}/?user=ann&lang=en")
            chat.ask(FACT)
            chat.wait_for_answer(0)
            chat.button("New chat").click()
            expect(chat.answers).to_have_count(0)
            chat.ask(QUESTION)
            answer = chat.wait_for_answer(0)
            expect(answer).to_contain_text("tuna")
            chat.unfold(answer.get_by_text("History used"))
            expect(answer).to_contain_text(FACT)

            service.kill9()
            service.start()
            chat.page.reload()
            expect(chat.answers).to_have_count(1)
            chat.unfold(chat.answers.nth(0).get_by_text("History used"))
            expect(chat.answers.nth(0)).to_contain_text(FACT)
