"""Clients of the API for its benchmark: requests at a fixed rate, and somebody who reads pages."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import cycle

MOST_CONNECTIONS = 100
PAUSE = 0.5  # seconds between two pages
Make = Callable[[int], bytes]


@dataclass
class Seen:
    """What clients saw: seconds from when a request was due until its answer, and the failures."""

    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def at(self, share: float) -> float:
        """The quantile in milliseconds."""
        ordered = sorted(self.seconds)
        return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000, 1)


class Connection:
    """One HTTP/1.1 connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and read the answer; again where an idle connection was closed."""
        kept = self._streams is not None
        try:
            return await self._ask(request)
        except (ConnectionError, asyncio.IncompleteReadError):
            self._streams = None
            if not kept:
                raise
            return await self._ask(request)

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body = await reader.readexactly(length)
        return int(head.split(b" ", 2)[1]), body


def request(method: str, path: str, headers: dict[str, str], content: object = None) -> bytes:
    """A request as bytes; content is sent as JSON."""
    body = b"" if content is None else json.dumps(content).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    if body:
        lines.append("Content-Type: application/json")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def at_rate(port: int, make: Make, rate: float, seconds: float, wanted: int) -> Seen:
    """Send requests at a fixed rate, whatever the answers take (open loop).

    A request that finds all connections taken waits for one; that counts as its time.
    """
    seen, free = Seen(), asyncio.Queue[Connection]()
    for _ in range(MOST_CONNECTIONS):
        free.put_nowait(Connection(port))
    begun = time.perf_counter()

    async def one(number: int, due: float) -> None:
        connection = await free.get()
        try:
            status, body = await connection.ask(make(number))
            if status != wanted:
                seen.failed.append(f"{status} {body[:200].decode(errors='replace')}")
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.failed.append(type(error).__name__)
            connection = Connection(port)
        free.put_nowait(connection)
        seen.seconds.append(time.perf_counter() - due)

    tasks: list[Awaitable[None]] = []
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.ensure_future(one(number, due)))
    await asyncio.gather(*tasks)
    return seen


async def reading(port: int, pages: list[bytes], over: asyncio.Event) -> Seen:
    """Read pages one after another, `PAUSE` apart, until it is over."""
    seen, connection = Seen(), Connection(port)
    for page in cycle(pages):
        if over.is_set():
            break
        begun = time.perf_counter()
        status, body = await connection.ask(page)
        seen.seconds.append(time.perf_counter() - begun)
        if status != 200:
            seen.failed.append(f"{status} {body[:200].decode(errors='replace')}")
        await asyncio.sleep(PAUSE)
    return seen
