"""Turns: work that must not run twice at once, on any number of hosts.

A turn ends with the block, or with the process that has it: the kernel gives the lock of a killed
one back, as PostgreSQL does when the connection closes. So there is nothing to renew, and nothing
that a person would have to clear away.
"""

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Engine, text

from guard.store.session import transaction

#: Sets the guard's advisory locks apart from those of others in the same database.
_SPACE = 0x6775
#: A host that lost its power closes no connection; the server asks after 10 s whether it is there.
_ASK = (
    "SET LOCAL tcp_keepalives_idle = 10",
    "SET LOCAL tcp_keepalives_interval = 5",
    "SET LOCAL tcp_keepalives_count = 3",
)


@contextmanager
def turn(engine: Engine, name: str) -> Iterator[bool]:
    """Have the turn of this name for the block; False where somebody else has it.

    Args:
        engine: of the database that those who take turns share. On PostgreSQL it gives a
            connection for the whole block; SQLite has a folder `turns` beside its file.
        name: letters, digits and `_`.

    Raises:
        Unavailable: the database did not answer.
    """
    if engine.dialect.name == "postgresql":
        # A lock of the transaction and none of the session, so that a pooler between them is right.
        with transaction(engine) as session:
            for statement in _ASK:
                session.execute(text(statement))
            asked = text("SELECT pg_try_advisory_xact_lock(:space, :key)")
            key = zlib.crc32(name.encode()) - (1 << 31)  # 32 bits with a sign
            yield bool(session.execute(asked, {"space": _SPACE, "key": key}).scalar_one())
        return
    folder = Path(str(engine.url.database)).parent / "turns"
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        mine = False
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = True
        yield mine
    finally:
        os.close(handle)
