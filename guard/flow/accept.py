"""Take a ledger as it is, though it differs from its checkpoints: after a restore, for example."""

import uuid

from guard.core.errors import InputError
from guard.core.roles import Act
from guard.flow._checkpoints import store_of
from guard.flow._seal import about_ledger, record, seal, write_checkpoint
from guard.flow._standing import Standing, compare
from guard.flow.context import Guard
from guard.flow.principals import Principal, name_of
from guard.store import revocations
from guard.store.session import transaction


def accept(guard: Guard, reason: str, by: Principal | str) -> list[str]:
    """Record that a person takes the database as it is, and go on from there.

    Every revocation that the chain or any checkpoint knows is put back into the database first.

    Returns:
        What was wrong, one sentence each; empty where nothing was and nothing was done.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: no reason was given, or no key is trusted.
        Unavailable: the checkpoint could not be written; nothing is accepted yet.
    """
    if not reason.strip():
        raise InputError("Accepting a ledger needs a reason.", code="act_no_reason")
    name = name_of(guard, by, Act.ACCEPT_LEDGER)
    signer, store, trusted = guard.signer, store_of(guard), guard.trusted
    with store.writing():
        found = compare(guard, store, trusted, whole=True)
        wrong = [*found.broken, *found.missing]
        if wrong:
            _put_back(guard, found, f"{name}: {reason}", signer.key_id)
            record(guard, about_ledger(guard, "accept", reason, name))
            now = compare(guard, store, trusted)
            write_checkpoint(guard, store, now, accepted=now.heads)
    if wrong:
        seal(guard)
    return wrong


def _put_back(guard: Guard, found: Standing, reason: str, key_id: str) -> None:
    there = {row.digest for row in found.table}
    with transaction(guard.engine) as session:
        for digest in sorted(found.revoked - there):
            revocations.add(
                session,
                revocation_id=uuid.uuid4().hex,
                digest=digest,
                reason=f"Put back from the signed record; {reason}",
                by=f"guard {key_id[:16]}",
                now=guard.now(),
            )
