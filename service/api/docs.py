"""``/openapi.json`` describes the API, ``/docs`` and ``/redoc`` show it; all three for whoever may call the API."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse

from service.api.dependencies import key_caller

router = APIRouter(dependencies=[Depends(key_caller)], include_in_schema=False)

_DOCUMENT = "/openapi.json"


@router.get(_DOCUMENT)
async def document(request: Request) -> dict[str, Any]:
    """Return the OpenAPI document."""
    described: dict[str, Any] = request.app.openapi()
    return described


@router.get("/docs")
async def swagger(request: Request) -> HTMLResponse:
    """Show it in Swagger UI."""
    return get_swagger_ui_html(openapi_url=_DOCUMENT, title=request.app.title)


@router.get("/redoc")
async def redoc(request: Request) -> HTMLResponse:
    """Show it in ReDoc."""
    return get_redoc_html(openapi_url=_DOCUMENT, title=request.app.title)
