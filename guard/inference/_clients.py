"""What clients may ask: the open inference protocol over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version as installed

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from guard.core.secret import Secret
from guard.inference._answers import HEADER_LENGTH, metadata, output_names, prediction
from guard.inference._models import Models
from guard.inference._released import Loaded
from guard.inference._requests import parse
from guard.inference._web import HANDLERS, Guarded, Refused, body_of, json_answer

LIVE, READY = "/v2/health/live", "/v2/health/ready"
MAX_BODY = 6_553_500  # as TorchServe's max_request_size
#: Requests that are read, wait or are computed at one time; the next one gets 503.
MAX_WAITING = 64


class Clients:
    """The endpoints for clients.

    Args:
        models: what is loaded.
        workers: how many requests are computed at one time.
        waiting: how many are admitted at one time.
    """

    def __init__(self, models: Models, *, workers: int, waiting: int = MAX_WAITING) -> None:
        self._models, self._most = models, waiting
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="infer")
        self._admitted = 0

    def app(self, key: Secret) -> Guarded:
        """The application; only liveness and readiness answer without the token."""
        model = "/v2/models/{name}"
        one = f"{model}/versions/{{version}}"
        routes = [
            Route(LIVE, self._alive, methods=["GET"]),
            Route(READY, self._alive, methods=["GET"]),
            Route("/v2", self._server, methods=["GET"]),
            *(Route(path, self._model, methods=["GET"]) for path in (model, one)),
            *(Route(f"{path}/ready", self._ready, methods=["GET"]) for path in (model, one)),
            *(Route(f"{path}/infer", self._infer, methods=["POST"]) for path in (model, one)),
        ]
        return Guarded(Starlette(routes=routes, exception_handlers=HANDLERS), key, {LIVE, READY})

    async def _alive(self, _request: Request) -> Response:
        # Ready without a model, too: what may be served is the guard's business, and it can only
        # load while this answers.
        return Response(status_code=200)

    async def _server(self, _request: Request) -> Response:
        return json_answer(
            {
                "name": "registry-guard",
                "version": installed("registry-guard"),
                "extensions": ["binary_tensor_data"],
            }
        )

    async def _model(self, request: Request) -> Response:
        found = self._found(request)
        versions = self._models.versions(found.release.name)
        return json_answer(metadata(found, versions), headers=found.headers)

    async def _ready(self, request: Request) -> Response:
        found = self._found(request)
        found.check_current(datetime.now(UTC))
        return json_answer({"name": found.release.name, "ready": True}, headers=found.headers)

    async def _infer(self, request: Request) -> Response:
        found = self._found(request)
        found.check_current(datetime.now(UTC))
        async with self._admission():
            body = await body_of(request, MAX_BODY)
            header = request.headers.get(HEADER_LENGTH)
            loop = asyncio.get_running_loop()
            content, headers = await loop.run_in_executor(self._pool, _predict, found, body, header)
        return Response(content, headers=headers | found.headers)

    def _found(self, request: Request) -> Loaded:
        return self._models.find(request.path_params["name"], request.path_params.get("version"))

    @asynccontextmanager
    async def _admission(self) -> AsyncIterator[None]:
        if self._admitted >= self._most:
            raise Refused("Too many requests wait; try again in a second.")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1


def _predict(model: Loaded, body: bytes, header_length: str | None) -> tuple[bytes, dict[str, str]]:
    wanted = parse(body, header_length, model.manifest.input_size, output_names(model))
    return prediction(model, wanted, model.run(wanted.images))
