"""One HTTP request to an address that was checked: no redirects, no proxies, bounded in all ways.

The standard library's client reads headers for as long as a receiver sends a byte in time, so the
answer is read here, against one deadline.
"""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

from guard.core.text import printable
from guard.notify.addresses import Place, Resolver, Rules, pin, system_resolver

MOST_READ = 16 << 10  # bytes of an answer
EXCERPT = 200  # characters of it that are kept where it is an error
#: The longest that a receiver may have the guard wait by `Retry-After`.
LONGEST_WAIT = 6 * 3600.0


class NoAnswer(OSError):
    """No answer came in time, or what came is no HTTP."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a receiver answered; `wait` is in seconds, 0 where it named none."""

    status: int
    wait: float
    excerpt: str

    @property
    def taken(self) -> bool:
        """Whether it took the message."""
        return 200 <= self.status < 300


def post(
    place: Place,
    body: bytes,
    headers: Mapping[str, str],
    *,
    rules: Rules,
    seconds: float,
    resolver: Resolver = system_resolver,
    trust: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request, and read what is needed of the answer.

    Args:
        place: where to.
        body: the message.
        headers: of the message; `Host` and what frames it are added.
        rules: which addresses may be called.
        seconds: limit of all of it but the look-up of the name.
        resolver: looks the name up, once.
        trust: certificates to trust; None means the system's.

    Raises:
        Refused: the address may not be called.
        NoAnswer, OSError: nothing listens, TLS fails, or no answer came in time.
    """
    address = pin(place, rules, resolver)
    until = time.monotonic() + seconds
    with closing(_connect(place, address, until, trust)) as connection:
        connection.settimeout(_left(until))
        connection.sendall(_request(place, headers, body) + body)
        return _answer(_read(connection, until))


def _connect(
    place: Place, address: str, until: float, trust: ssl.SSLContext | None
) -> socket.socket:
    plain = socket.create_connection((address, place.port), timeout=_left(until))
    if not place.secure:
        return plain
    try:
        plain.settimeout(_left(until))
        # The name, not the address, is what the certificate must be for.
        context = trust or ssl.create_default_context()
        return context.wrap_socket(plain, server_hostname=place.host)
    except BaseException:
        plain.close()
        raise


def _request(place: Place, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [
        f"POST {place.target} HTTP/1.1",
        f"Host: {place.authority}",
        "User-Agent: registry-guard",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _read(connection: socket.socket, until: float) -> bytes:
    """The beginning of an answer: its head, and where that is an error some of its body."""
    data = b""
    while len(data) < MOST_READ:
        try:
            connection.settimeout(_left(until))
            part = connection.recv(4096)
        except OSError:
            if b"\r\n\r\n" not in data:
                raise
            break  # the status is known
        data += part
        head, ended, rest = data.partition(b"\r\n\r\n")
        if not part or (ended and (_is_success(head) or len(rest) >= _length(head))):
            break
    return data


def _is_success(head: bytes) -> bool:
    return head.split(b" ", 2)[1:2] != [] and head.split(b" ", 2)[1].startswith(b"2")


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return int(value.strip()[:9])
    return MOST_READ


def _answer(data: bytes) -> Answer:
    # Bytes in place of a socket, for the standard library's parser.
    replay: Any = SimpleNamespace(makefile=lambda *_: io.BytesIO(data))
    response = http.client.HTTPResponse(replay, method="POST")
    try:
        response.begin()
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise NoAnswer("the answer is no HTTP") from error
    excerpt = b""
    if not 200 <= response.status < 300:
        try:
            excerpt = response.read(MOST_READ)
        except http.client.IncompleteRead as error:
            excerpt = error.partial
        except (http.client.HTTPException, OSError, ValueError):
            excerpt = b""
    text = excerpt.decode("utf-8", errors="replace")[:EXCERPT]
    return Answer(
        status=response.status,
        wait=_wait(response.headers.get("Retry-After", "")),
        excerpt=printable(text)[:EXCERPT],
    )


def _wait(text: str) -> float:
    """Seconds from a `Retry-After`, which is a number or a date; 0 where it is neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(max(0.0, (at - datetime.now(UTC)).total_seconds()), LONGEST_WAIT)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise NoAnswer("no answer came in time")
    return left
