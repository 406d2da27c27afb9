"""What only the guard may ask: load, unload, set the default, list."""

import asyncio
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from guard.core.secret import Secret
from guard.inference._models import Models
from guard.inference._web import HANDLERS, Guarded, json_answer


class Management:
    """The endpoints of the management address; a body is never read, and no path of a file taken.

    Args:
        models: what is loaded.
    """

    def __init__(self, models: Models) -> None:
        self._models = models

    def app(self, key: Secret) -> Guarded:
        """The application; nothing of it answers without the management token."""
        one = "/models/{name}/{version}"
        routes = [
            Route("/models", self._list, methods=["GET"]),
            Route(one, self._load, methods=["PUT"]),
            Route(one, self._unload, methods=["DELETE"]),
            Route(f"{one}/default", self._default, methods=["PUT"]),
        ]
        return Guarded(Starlette(routes=routes, exception_handlers=HANDLERS), key)

    async def _list(self, _request: Request) -> Response:
        return json_answer({"models": self._models.listed()})

    async def _load(self, request: Request) -> Response:
        # In a thread: clients of other models are answered meanwhile.
        await asyncio.to_thread(self._models.load, *_names(request), datetime.now(UTC))
        return json_answer({})

    async def _unload(self, request: Request) -> Response:
        self._models.unload(*_names(request))
        return json_answer({})

    async def _default(self, request: Request) -> Response:
        self._models.make_default(*_names(request))
        return json_answer({})


def _names(request: Request) -> tuple[str, str]:
    return str(request.path_params["name"]), str(request.path_params["version"])
