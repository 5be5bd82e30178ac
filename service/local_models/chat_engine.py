"""llama.cpp in this process, with its own HTTP server on a loopback port.

The engine (xllamacpp) includes an OpenAI-compatible server with streaming, structured output and cancelling when a
connection closes. A random key keeps other processes out; `app` relays to it and adds what vLLM has and it lacks.
"""

import secrets
from pathlib import Path
from typing import Any

import httpx2

from service.local_models.embedder import INSTALL_HINT
from service.local_models.errors import EngineUnusable
from service.local_models.machine import GIB, Machine

# One slot for a background summary, one for the person who chats.
PARALLEL_SLOTS = 2
CONTEXT_TOKENS = 8192
CONTEXT_TOKENS_MIN = 2048
# Memory for the prompts of conversations that lost their slot (MiB); the engine's default is 8 GiB.
PROMPT_CACHE_MIB = 512
ERRORS_ONLY = 1
# Of a request that names none. At the engine's default (0.8), small models answer in another language at times.
TEMPERATURE = 0.2
# Likewise. Small models find no end at times, and would go on to the end of the context, for minutes.
ANSWER_TOKENS = 1024


class ChatEngine:
    """A loaded model and the address of its server. Construction loads the file, which takes seconds.

    `max_model_len` is in tokens, prompt and answer together. Raises EngineUnusable if the engine is not installed or
    cannot load the file.
    """

    def __init__(self, name: str, path: Path, *, context: int, threads: int) -> None:
        try:
            import xllamacpp
        except ImportError as error:
            raise EngineUnusable(f"The chat engine xllamacpp cannot be loaded ({error}). {INSTALL_HINT}") from error
        self.name = name
        self.api_key = secrets.token_urlsafe(32)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.model_alias = {name}
        params.n_ctx = context * PARALLEL_SLOTS
        params.n_parallel = PARALLEL_SLOTS
        params.kv_unified = False
        params.fit_params = False
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.sampling.temp = TEMPERATURE
        params.cache_ram_mib = PROMPT_CACHE_MIB
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.api_keys = [self.api_key]
        params.ui = False
        params.endpoint_slots = False
        # Its warnings quote requests, which contain people's messages.
        params.verbosity = ERRORS_ONLY
        try:
            self._server: Any = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            raise EngineUnusable(
                f"The chat model {path} does not load ({error}). A smaller LOCAL_CONTEXT needs less memory; "
                "LOCAL_CHAT_MODEL chooses another model."
            ) from error
        self.base_url: str = self._server.listening_address
        # The engine reduces the context to what the model was trained on.
        with httpx2.Client(base_url=self.base_url, headers=self.headers, trust_env=False) as client:
            reported = client.get("/props").raise_for_status().json()
        self.max_model_len = int(reported["default_generation_settings"]["n_ctx"])

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}

    def close(self) -> None:
        """Stop generating and free the model."""
        self._server = None


def context_for(machine: Machine, file_bytes: int, kv_bytes: int) -> int:
    """Tokens per slot: `CONTEXT_TOKENS`, halved until weights, contexts and 1 GiB for the rest fit in memory."""
    context = CONTEXT_TOKENS
    room = machine.memory_bytes - file_bytes - PROMPT_CACHE_MIB * 1024**2 - GIB
    while context > CONTEXT_TOKENS_MIN and context * PARALLEL_SLOTS * kv_bytes > room:
        context //= 2
    return context
