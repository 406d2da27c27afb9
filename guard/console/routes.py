"""All parts of the console, and its style sheet, which alone is open to everybody."""

from fastapi import APIRouter, Response

from guard.console import compare, log, models, orders, queue, rules, scans, served
from guard.console._page import HEADERS, stylesheet

router = APIRouter(include_in_schema=False)


@router.get("/console/static/console.css")
def style() -> Response:
    """The one style sheet of all pages."""
    return Response(stylesheet(), media_type="text/css", headers=HEADERS)


#: The routers of all pages.
ROUTERS = (
    router,
    *(part.router for part in (queue, models, orders, scans, served, log, rules, compare)),
)
