"""The FastAPI application. Run as `uvicorn guard.api.app:from_settings --factory`."""

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
    sign_off,
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
#: With "no-referrer" a browser would not say from which page a form comes.
_PAGE_HEADERS = {**_HEADERS, "Referrer-Policy": "same-origin"}


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
    sign_off,
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
    app.state.sign_offs = Attempts(sign_off.MOST)
    terms = terms_of(guard.settings)
    app.state.provider = None if terms is None else Provider(terms, guard.now)
    for part in ROUTES:
        app.include_router(part.router)
    for router in console.ROUTERS if guard.settings.console else ():
        app.include_router(router)
    problems.install(app)
    app.add_middleware(Gatekeeper, guard=guard)
    app.add_middleware(_Headed)
    return app


class _Headed:
    """Give every answer the headers that keep it plain; no task or queue stands between."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                page = sessions.is_console(scope["path"])
                MutableHeaders(scope=message).update(_PAGE_HEADERS if page else _HEADERS)
            await send(message)

        await self.app(scope, receive, headed if scope["type"] == "http" else send)


def from_settings() -> FastAPI:
    """The application as the environment configures it.

    Raises:
        InputError: a setting is invalid.
    """
    settings = load_settings()
    configure(settings.log_level, json=settings.log_json)
    return create_app(open_guard(settings))
