"""The fields of a form, of either encoding that browsers use; at most 64 KB reach this code."""

import email.parser
import email.policy
from email.message import EmailMessage
from urllib.parse import parse_qsl

from fastapi import Request

from guard.core.errors import InputError

MOST_FIELDS = 50


class BadForm(InputError):
    """A body that is no form."""

    code = "bad_request"


async def fields_of(request: Request) -> dict[str, str]:
    """The fields by name; of several with one name the last that is not empty counts.

    Raises:
        BadForm: it is no form, or not UTF-8.
    """
    kind, body = request.headers.get("content-type", ""), await request.body()
    try:
        if kind.lower().startswith("multipart/form-data"):
            pairs = _parts(kind, body)
        else:
            pairs = parse_qsl(
                body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"
            )
    except ValueError as error:
        raise BadForm("This is not a form that a browser sends.") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if value or name not in found:
            # Browsers send line breaks as CR LF; in a reason they are one.
            found[name] = value.replace("\r\n", "\n")
    return found


def _parts(kind: str, body: bytes) -> list[tuple[str, str]]:
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    header = kind.encode("latin-1", "replace").replace(b"\n", b" ").replace(b"\r", b" ")
    message = parser.parsebytes(b"Content-Type: " + header + b"\r\n\r\n" + body)
    found = []
    for part in list(message.iter_parts())[:MOST_FIELDS] if message.is_multipart() else ():
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True) if isinstance(part, EmailMessage) else None
        if isinstance(name, str) and isinstance(data, bytes):
            found.append((name, data.decode()))
    return found
