"""Turns against a running service, and what was acknowledged when."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A turn whose answer came whole. ``moment`` is what the caller's clock said then."""

    moment: int
    user: str
    memory_id: str
    turn_id: int
    question: str


@dataclass
class Load:
    """Clients that chat until they are stopped. A person may have several, which then ask different services.

    A call that fails is not sent again.
    """

    base_urls: Sequence[str]
    moment: Callable[[], int]
    users: int = 4
    clients_of_each: int = 1
    acknowledged: list[Acknowledged] = field(default_factory=list)
    refused: int = 0
    broken: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Load]:
        clients = self.users * self.clients_of_each
        threads = [threading.Thread(target=self._chat, args=(number,), daemon=True) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(_TIMEOUT_S)

    def _chat(self, number: int) -> None:
        user, rng, said = f"user-{number % self.users}", random.Random(number), 0  # noqa: S311 - not a secret
        base_url = self.base_urls[number // self.users % len(self.base_urls)]
        with httpx2.Client(base_url=base_url, timeout=_TIMEOUT_S, trust_env=False) as client:
            while not self._stop.is_set():
                said += 1
                question = f"My number {said} is {rng.randint(1000, 9999)}."
                try:
                    self._one_turn(client, user, question, rng)
                except httpx2.HTTPError:
                    self.broken += 1
                    self._stop.wait(0.05)

    def _one_turn(self, client: httpx2.Client, user: str, question: str, rng: random.Random) -> None:
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": question}],
            "user": user,
            "metadata": {"conversation_id": f"c{rng.randint(1, 3)}"},
        }
        answer = client.post("/v1/chat/completions", json=body)
        if answer.status_code != 200:
            self.refused += 1
            self._stop.wait(0.05)
            return
        turn = answer.json()["turn"]
        self.acknowledged.append(Acknowledged(self.moment(), user, turn["memory_id"], turn["turn_id"], question))
        if rng.random() < 0.1:
            client.patch(f"/v1/memories/{turn['memory_id']}", json={"user": user, "summary": f"{question} Really."})
        if rng.random() < 0.03:
            client.delete(f"/v1/memories/{turn['memory_id']}", params={"user": user})
