"""The OpenAPI description, with what FastAPI does not know of itself.

That is how a caller authorises, and that a request that is not valid is answered as every other
refusal: 400, a problem, and not with FastAPI's own 422.
"""

from typing import Any

from fastapi import FastAPI

from guard.api.access import OPEN, SELF_CHECKED
from guard.api.problems import Problem

#: Of an object store: the webhook's token, or both headers of a signature.
_SENDERS: list[dict[str, list[str]]] = [{"webhook_token": []}, {"signature": [], "timestamp": []}]
_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A principal's token."},
    "webhook_token": {"type": "http", "scheme": "bearer", "description": "GUARD_WEBHOOK_TOKEN."},
    "signature": {"type": "apiKey", "in": "header", "name": "X-Guard-Signature"},
    "timestamp": {"type": "apiKey", "in": "header", "name": "X-Guard-Timestamp"},
}
_FASTAPIS = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> dict[str, Any]:
    """What `/openapi.json` answers with."""
    found = app.openapi()
    components = found["components"]
    schemas = {name: one for name, one in components["schemas"].items() if name not in _FASTAPIS}
    return {
        **found,
        "paths": {
            path: {method: _operation(path, one) for method, one in methods.items()}
            for path, methods in found["paths"].items()
        },
        "components": {
            **components,
            "schemas": {**schemas, "Problem": Problem.model_json_schema()},
            "securitySchemes": _SCHEMES,
        },
        "security": [{"token": []}],
    }


def _operation(path: str, found: dict[str, Any]) -> dict[str, Any]:
    answers = {
        status: one
        for status, one in found["responses"].items()
        if "HTTPValidationError" not in str(one)
    }
    made = {**found, "responses": answers}
    if path in OPEN:
        made["security"] = []
    elif path in SELF_CHECKED:
        made["security"] = _SENDERS
    return made
