"""Add a clean set by a recorded act: what detectors see and repairs learn from is chosen there."""

from typing import TYPE_CHECKING

from guard.core.roles import Act
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.principals import permit
from guard.store import cleansets
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from guard.core.evidence import AnyCleanSet
    from guard.flow.context import Guard
    from guard.flow.principals import Principal


def add(guard: "Guard", who: "Principal | str", facts: "AnyCleanSet", data: bytes) -> None:
    """Store a curated clean set by digest under its name, in whose place it comes from now on.

    Args:
        data: the curated set, of which `facts` tell.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`; nothing was stored.
    """
    with reading(guard.engine) as session:
        permit(guard, session, who, Act.ADD_CLEANSET)
    guard.blobs.put_bytes(data)
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.ADD_CLEANSET)
        cleansets.put(session, facts, guard.now())
        note(guard, session, who, Act.ADD_CLEANSET, facts.digest, facts.name)
    settle(guard)
