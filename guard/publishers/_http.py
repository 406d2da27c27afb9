"""HTTP to a server on this machine, whose tokens lie in a file that it writes at each start."""

import json
from pathlib import Path

import httpx

from guard.core.errors import Unavailable

_UNIX = "unix:"


def make_client(address: str, seconds: float) -> httpx.Client:
    """A client of `http://...` or `unix:/path`, with a limit for each call in seconds."""
    timeout = httpx.Timeout(seconds, connect=min(seconds, 3.0))
    if address.startswith(_UNIX):
        transport = httpx.HTTPTransport(uds=address.removeprefix(_UNIX))
        return httpx.Client(
            base_url="http://server", transport=transport, timeout=timeout, trust_env=False
        )
    return httpx.Client(base_url=address, timeout=timeout, trust_env=False)


def read_key(file: Path, kind: str, server: str) -> str:
    """The token of one kind in a key file; `server` is how the sentence names whose it is.

    Raises:
        Unavailable: the file is not there, or holds no such token.
    """
    try:
        return str(json.loads(file.read_text())[kind]["key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        sentence = f"{server}'s {file.name} cannot be read ({error}); is it running?"
        raise Unavailable(sentence) from error
