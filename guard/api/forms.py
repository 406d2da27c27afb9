"""The fields of a form, of either encoding that browsers use; at most 64 KB reach this code."""

import email.parser
import email.policy
from email.message import EmailMessage
from urllib.parse import parse_qsl

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"


def pairs_of(kind: str, body: bytes, most: int) -> list[tuple[str, str]]:
    """The names and values of a form's fields, in order; none for a body of another type.

    Args:
        kind: the `Content-Type` with its parameters.
        most: fields that a form may have.

    Raises:
        ValueError: it is not UTF-8, or has more fields.
    """
    plain = kind.partition(";")[0].strip().lower()
    if plain == URLENCODED:
        text = body.decode()
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=most)
    return _parts(kind, body, most) if plain == MULTIPART else []


def _parts(kind: str, body: bytes, most: int) -> list[tuple[str, str]]:
    header = kind.encode("latin-1", "replace").replace(b"\n", b" ").replace(b"\r", b" ")
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(b"Content-Type: " + header + b"\r\n\r\n" + body)
    parts = list(message.iter_parts()) if message.is_multipart() else []
    if len(parts) > most:
        raise ValueError("too many fields")
    found = []
    for part in parts:
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True) if isinstance(part, EmailMessage) else None
        if isinstance(name, str) and isinstance(data, bytes):
            found.append((name, data.decode()))
    return found
