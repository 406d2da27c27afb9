"""Routes that answer with pages, also where a use case refuses."""

from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from guard.api.problems import status_of
from guard.console._page import page
from guard.console._who import Reader, who_reads
from guard.core.errors import GuardError, InputError

_ODD = "This address is not one of the console's."


class PageRoute(APIRoute):
    """A route whose refusals are pages with a sentence."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """FastAPI's handler, with refusals as pages."""
        handle = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await handle(request)
            except GuardError as error:
                return await run_in_threadpool(refusal, request, error)
            except RequestValidationError:
                odd = InputError(_ODD, code="bad_request")
                return await run_in_threadpool(refusal, request, odd)

        return shown


def refusal(request: Request, error: GuardError) -> Response:
    """The page of a refusal, for whoever has a session."""
    reader: Reader | None
    try:
        reader = who_reads(request)
    except GuardError:
        reader = None
    status = status_of(error)
    return page(
        request, "refused.html.jinja", reader, status, sentence=error.sentence, code=error.code
    )
