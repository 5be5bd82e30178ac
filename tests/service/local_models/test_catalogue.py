from pathlib import Path

import pytest

from domain.errors import SettingsError
from service.local_models import machine
from service.local_models.catalogue import CHAT_MODELS, QWEN_0_5B, QWEN_1_5B, HubFile, ModelFile, resolve, table
from service.local_models.chat_engine import PARALLEL_SLOTS, PROMPT_CACHE_MIB, context_for
from service.local_models.machine import GIB, Machine, this_machine

SMALL = Machine(cores=1, memory_bytes=8 * GIB)


@pytest.mark.parametrize(
    ("cores", "memory_gib", "model"),
    [
        (8, 16, QWEN_1_5B),
        (4, 4, QWEN_1_5B),
        (2, 4, QWEN_1_5B),
        (1, 16, QWEN_0_5B),
        (16, 3, QWEN_0_5B),
        (1, 0, QWEN_0_5B),
    ],
)
def test_a_machine_gets_the_largest_model_it_can_run(cores: int, memory_gib: int, model: object) -> None:
    assert resolve("", Machine(cores, memory_gib * GIB)) is model


def test_a_model_is_chosen_by_its_name_in_any_case() -> None:
    assert resolve("SmolLM2-135M-Instruct", SMALL) is CHAT_MODELS["smollm2-135m-instruct"]


def test_a_gguf_file_of_ones_own_is_served_under_its_name(tmp_path: Path) -> None:
    file = tmp_path / "My-Model.gguf"
    file.write_bytes(b"GGUF and the rest")
    assert resolve(str(file), SMALL) == ModelFile(name="my-model", path=file)


def test_a_file_of_the_hub_is_named_by_its_repository() -> None:
    chosen = resolve("Qwen/Qwen3-4B-GGUF/Qwen3-4B-Q4_K_M.gguf", SMALL)
    assert chosen == HubFile(repository="Qwen/Qwen3-4B-GGUF", filename="Qwen3-4B-Q4_K_M.gguf")
    assert isinstance(chosen, HubFile)
    assert chosen.name == "qwen3-4b-q4_k_m"


def test_a_file_that_is_here_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "models" / "mine" / "chat.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"GGUF and the rest")
    monkeypatch.chdir(tmp_path)
    assert resolve("models/mine/chat.gguf", SMALL) == ModelFile(name="chat", path=file)


@pytest.mark.parametrize(
    "choice", ["../other/chat.gguf", "owner/../chat.gguf", "owner/chat.gguf", "a/b/c/d.gguf", "/a/b.gguf"]
)
def test_what_cannot_be_on_the_hub_is_a_path(choice: str) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        resolve(choice, SMALL)


def test_one_part_of_a_model_in_several_is_refused() -> None:
    with pytest.raises(SettingsError, match="one of several parts"):
        resolve("owner/repo/big-00001-of-00003.gguf", SMALL)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"LOCAL_CHAT_MODEL='gpt-9' is none of qwen.*smollm2-135m-instruct"):
        resolve("gpt-9", SMALL)


def test_a_path_without_a_file_and_a_file_of_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        resolve(str(tmp_path / "absent.gguf"), SMALL)
    other = tmp_path / "page.gguf"
    other.write_text("<html>")
    with pytest.raises(SettingsError, match="not a GGUF file"):
        resolve(str(other), SMALL)


def test_every_model_states_what_a_person_needs_to_choose() -> None:
    *lines, others = table()
    assert len(lines) == len(CHAT_MODELS) == 3
    assert "owner/repo/file.gguf" in others
    for model, line in zip(CHAT_MODELS.values(), lines, strict=True):
        assert model.name in line
        assert model.licence in line
        assert len(bytes.fromhex(model.sha256)) == 32
        assert all("==" in wheel for wheel in model.wheels)


def test_this_machine_has_cores_and_memory() -> None:
    here = this_machine()
    assert here.cores >= 1
    assert here.memory_bytes > 0


def test_the_limits_of_a_container_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{8 * 1024**2}\n")
    (tmp_path / "memory.current").write_text(f"{3 * 1024**2}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {1024**2}\n")
    assert this_machine() == Machine(cores=1, memory_bytes=6 * 1024**2)


def test_the_context_shrinks_until_it_fits() -> None:
    weights, kv = GIB, 16 * 1024
    fixed = weights + PROMPT_CACHE_MIB * 1024**2 + GIB
    both_slots = PARALLEL_SLOTS * kv
    assert context_for(Machine(2, fixed + 8192 * both_slots), weights, kv) == 8192
    assert context_for(Machine(2, fixed + 8192 * both_slots - 1), weights, kv) == 4096
    assert context_for(Machine(2, 0), weights, kv) == 2048
