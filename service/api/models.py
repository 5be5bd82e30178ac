"""``GET /v1/models`` and ``/v1/models/{id}``: the chat model that answers, by the names that a request may give it."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from domain.errors import UnknownModel
from service.api.dependencies import ServicesDep, key_caller
from service.api.responses import ModelCard, ModelList
from service.container import Services
from service.knobs import Knobs

router = APIRouter(prefix="/v1/models", dependencies=[Depends(key_caller)])

NO_MEMORY = ":no-memory"
"""What stands behind the model's name in requests that are answered without memory."""


@router.get("")
async def models(services: ServicesDep) -> ModelList:
    """List the one chat model that answers, with and without memory, and the knobs of a request that sets none."""
    return {"object": "list", "data": _cards(services)}


# Names of models often hold a slash.
@router.get("/{model_id:path}")
async def model(model_id: str, services: ServicesDep) -> ModelCard:
    """Return one of the listed models."""
    for card in _cards(services):
        if card["id"] == model_id:
            return card
    raise UnknownModel(model_id)


def _cards(services: Services) -> list[ModelCard]:
    name, turns = services.settings.llm_model, services.turns
    return [
        {
            "id": model_id,
            "object": "model",
            "created": services.started_at,
            "owned_by": "openpersistentmemory",
            "max_model_len": turns.context.tokens if turns.context.known else None,
            "knobs": turns.effective(Knobs()),
        }
        for model_id in (name, f"{name}{NO_MEMORY}")
    ]
