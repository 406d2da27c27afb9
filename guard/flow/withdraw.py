"""Take an artifact out of serving and make sure that it is never served again."""

import uuid

from guard.core.digests import is_digest
from guard.core.errors import InputError
from guard.core.roles import Act
from guard.flow import _happened
from guard.flow._acts import note
from guard.flow._seal import seal
from guard.flow.context import Guard
from guard.flow.principals import Principal, permit
from guard.store import publications, revocations, scans
from guard.store.rows import PublicationRow
from guard.store.session import transaction


def withdraw(
    guard: Guard, name_or_digest: str, reason: str, by: Principal | str
) -> list[PublicationRow]:
    """Revoke the digest(s) published under a name, or one digest, and take them out of serving.

    The revocation is committed first: if the serving system does not answer, `reconcile`
    finishes the work.

    Args:
        by: a principal with an operator's token; a name stands for a login without one.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: nothing of that name or digest is published, or no reason was given.
        Unavailable: the serving system did not answer; the revocation stands.
    """
    if not reason.strip():
        raise InputError("A withdrawal needs a reason.", code="withdraw_no_reason")
    with transaction(guard.engine) as session:
        who = permit(guard, session, by, Act.WITHDRAW)
        active = publications.active(session)
        mine = [
            row
            for row in active
            if name_or_digest in (row.name, row.digest)
            or (len(name_or_digest) >= 8 and row.digest.startswith(name_or_digest))
        ]
        if not mine and not is_digest(name_or_digest):
            raise InputError(
                f"Nothing called {name_or_digest!r} is published; `guard served` lists what is.",
                code="withdraw_unknown",
            )
        for digest in {row.digest for row in mine} or {name_or_digest}:
            revocations.add(
                session,
                revocation_id=uuid.uuid4().hex,
                digest=digest,
                reason=reason,
                by=who.name,
                now=guard.now(),
            )
            note(guard, session, who, Act.WITHDRAW, digest, reason)
            for scan in scans.for_digest(session, digest):
                _happened.mark(guard, session, scan.id)
    # Signs the revocations and puts them into the ledger's chain. Where this process cannot, the
    # one with the key does so when it next reconciles; until then the row alone revokes.
    seal(guard)
    for row in mine:
        guard.publisher.withdraw(row.name, row.version)
        with transaction(guard.engine) as session:
            publications.withdraw(session, row.id, reason=reason, now=guard.now())
    return mine
