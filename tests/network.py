"""Tests talk to this machine only: whoever would leave it fails at once, with the address.

For Python code in the test processes (an audit hook sees every socket there); what tests start
runs without it.
"""

import ipaddress
import os
import socket
import sys
from collections.abc import Iterable
from urllib.parse import urlsplit

import pytest

_LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname"}
_SENDS = {"socket.connect", "socket.sendto", "socket.sendmsg"}


def is_here(host: str, also: Iterable[str] = ()) -> bool:
    """Whether a host name or address is this machine, or one of `also`."""
    if host in {"", "localhost", socket.gethostname(), *also}:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def refuse_strangers() -> None:
    """From now on until the process ends; the server of `DATABASE_URL` is no stranger."""
    database = urlsplit(os.environ.get("DATABASE_URL", "")).hostname
    known = {database} if database else set()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _LOOKUPS:
            host = arguments[0]
        elif event in _SENDS and isinstance(arguments[1], tuple) and _internet(arguments[0]):
            host = arguments[1][0]
        else:
            return
        name = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")
        if not is_here(name, known):
            # No Exception, so that no code under test takes it for a network that is away.
            pytest.fail(f"{event}: a test must not talk to {name}", pytrace=True)

    sys.addaudithook(hook)


def _internet(one: object) -> bool:
    return isinstance(one, socket.socket) and one.family in {socket.AF_INET, socket.AF_INET6}
