"""Requests to text-to-graph models, parsed and answered with SMILES."""

import json
from typing import Any

import torch

from guard.core.errors import InputError
from guard.core.text_request import TextRequest
from guard.graphs import answers

MAX_BODY = 64 << 10


def parse(row: dict[str, Any]) -> TextRequest:
    """The request in one row of a batch.

    Raises:
        InputError: it is malformed; the message is for the client.
    """
    body = row.get("body", row.get("data"))
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    if isinstance(body, bytes | bytearray):
        body = _json(bytes(body))
    return TextRequest.from_body(body)


def answer(model: Any, request: TextRequest) -> str:
    """The response to a request as JSON; the same for the same request.

    Raises:
        InputError: the model refuses the text.
    """
    with torch.inference_mode():
        return json.dumps(answers.answer(model, request))


def _json(body: bytes) -> Any:
    try:
        if len(body) > MAX_BODY:
            raise ValueError("too long")
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError("The body is no JSON of a request.", code="bad_json") from error
