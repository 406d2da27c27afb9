"""Find free ports on loopback.

Another program may take one before it is used; the component then reports that and does not start.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"
_GRPC_OFFSET = 10_000  # SeaweedFS opens a second port at this distance from each
# Below Linux's range for outgoing connections, also with the offset cut off.
_FIRST, _LAST = 20_000, 30_000


def free_ports(count: int) -> list[int]:
    """`count` different ports, each free together with the port 10000 above it."""
    with ExitStack() as held:
        found = _pairs(held)
        return [next(found) for _ in range(count)]


def _pairs(held: ExitStack) -> Iterator[int]:
    start = _any_port(held) % (_LAST - _FIRST)
    for step in range(_LAST - _FIRST):
        port = _FIRST + (start + step) % (_LAST - _FIRST)
        if _hold(held, port) and _hold(held, port + _GRPC_OFFSET):
            yield port


def _any_port(held: ExitStack) -> int:
    """A port that the kernel chooses, so that two stacks do not search from the same place."""
    listener = held.enter_context(socket.socket())
    listener.bind((LOOPBACK, 0))
    return int(listener.getsockname()[1])


def _hold(held: ExitStack, port: int) -> bool:
    listener = held.enter_context(socket.socket())
    try:
        listener.bind((LOOPBACK, port))
    except OSError:
        return False
    return True
