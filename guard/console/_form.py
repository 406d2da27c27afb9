"""The fields of a console's form. The Gatekeeper has checked that a page of ours sent it."""

from fastapi import Request

from guard.api.forms import pairs_of
from guard.api.sessions import MAX_FIELDS, BadForm


async def fields_of(request: Request) -> dict[str, str]:
    """The fields by name; of several with one name the last that is not empty counts.

    Raises:
        BadForm: it is not UTF-8, or has too many fields.
    """
    kind, body = request.headers.get("content-type", ""), await request.body()
    found: dict[str, str] = {}
    try:
        for name, value in pairs_of(kind, body, MAX_FIELDS):
            if value or name not in found:
                # Browsers send line breaks as CR LF; in a reason they are one.
                found[name] = value.replace("\r\n", "\n")
    except ValueError as error:
        raise BadForm("This is not a form that a browser sends.") from error
    return found
