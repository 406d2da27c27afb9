"""The FastAPI application. Run as `uvicorn guard.api.app:from_settings --factory`."""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response

from guard import __version__
from guard.api import (
    alarms,
    dead_letters,
    docs_page,
    events,
    health,
    hooks,
    problems,
    projects,
    scans,
    sessions,
    signon,
    training_jobs,
    waivers,
)
from guard.api._attempts import Attempts
from guard.api.access import Gatekeeper
from guard.api.answers import CleanJson
from guard.api.metrics import EventCounter
from guard.bootstrap import open_guard
from guard.console import routes as console
from guard.flow.context import Guard
from guard.logs import configure
from guard.settings import load_settings
from guard.signon import Provider, terms_of

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}


#: The files whose routes the application has.
ROUTES = (
    events,
    scans,
    waivers,
    projects,
    training_jobs,
    alarms,
    dead_letters,
    hooks,
    health,
    docs_page,
    signon,
)


def create_app(guard: Guard) -> FastAPI:
    """The application around a Guard, of which it uses only settings, database and clock.

    It touches no bucket, no blob and no key but the one that seals destinations of notifications.

    Raises:
        InputError: the settings about the identity provider are wrong.
    """
    app = FastAPI(
        title="Registry Guard",
        version=__version__,
        default_response_class=CleanJson,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        description="Nominate uploads, follow scans, read verdicts, waive findings, sift sets.",
    )
    app.state.guard = guard
    app.state.events = EventCounter()
    app.state.seen = events.new_memory()
    app.state.attempts = Attempts()
    terms = terms_of(guard.settings)
    app.state.provider = None if terms is None else Provider(terms, guard.now)
    for part in ROUTES:
        app.include_router(part.router)
    for router in console.ROUTERS if guard.settings.console else ():
        app.include_router(router)
    problems.install(app)
    app.add_middleware(Gatekeeper, guard=guard)

    @app.middleware("http")
    async def plain(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call(request)
        response.headers.update(_HEADERS)
        if sessions.is_console(request.scope["path"]):
            # With "no-referrer" a browser would not say from which page a form comes.
            response.headers["Referrer-Policy"] = "same-origin"
        return response

    return app


def from_settings() -> FastAPI:
    """The application as the environment configures it.

    Raises:
        InputError: a setting is invalid.
    """
    settings = load_settings()
    configure(settings.log_level, json=settings.log_json)
    return create_app(open_guard(settings))
