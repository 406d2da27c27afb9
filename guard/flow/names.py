"""What a person may do to a served name: go back to an older version, or give it away.

Both need a reason, and both are acts that the ledger keeps.
"""

from guard.core.errors import InputError, NotServable
from guard.core.roles import Act
from guard.core.states import ScanState
from guard.flow import publish
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.context import Guard
from guard.flow.principals import Principal, permit
from guard.store import claims, outbox, publications, scans
from guard.store.rows import ClaimRow, ScanRow
from guard.store.session import reading, transaction


def rollback(guard: Guard, name: str, to: str | None, reason: str, by: Principal | str) -> ScanRow:
    """Serve an older artifact of a name again, until a newer upload than the newest is published.

    Its bytes return under a new version, since a version is never used twice.

    Args:
        to: a version that the name had, or a scan of the name that was never published; None is the
            last one before that which is served, or was last, that may still be served.
        by: a principal with an operator's token; a name stands for a login without one.

    Returns:
        The scan whose `publish` stage was asked for.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: no reason, no such name or version.
        NotServable: it may not be served any more; the sentence says why.
    """
    _check_reason(reason, "rollback")
    with reading(guard.engine) as session:
        permit(guard, session, by, Act.ROLLBACK)
        claims.get(session, name)
    target = _before(guard, name) if to is None else _named(guard, name, to)
    publish.view(guard, target)
    now = guard.now()
    with transaction(guard.engine) as session:
        who = permit(guard, session, by, Act.ROLLBACK)
        claims.lock(session, name)
        active = [row.digest for row in publications.active(session, name)]
        if target.canonical_digest in active:
            raise InputError(f"{name!r} serves this one already.", code="rollback_nothing")
        claims.change(session, name, rolled_back_to=target.canonical_digest)
        facts = {"from": active, "to": target.canonical_digest, "scan": target.id}
        note(guard, session, who, Act.ROLLBACK, name, reason, facts)
        moved = scans.move(session, target.id, ScanState.PUBLISHING, now)
        outbox.add(session, "publish", {"scan_id": target.id}, now)
    settle(guard)
    return moved


def transfer(
    guard: Guard,
    name: str,
    owner: str | None,
    prefix: str | None,
    reason: str,
    by: Principal | str,
) -> ClaimRow:
    """Give a name to another owner, another prefix of its bucket, or both.

    What is served stays until the new owner's first upload is published. What the old owner had
    uploaded is not published any more.

    Args:
        owner: the new owner as the store tells it; None keeps the owner.
        prefix: the new folder with its slash, or a key at the top; None keeps the prefix.
        by: a principal with an operator's token; a name stands for a login without one.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: no reason, no such name, the prefix holds another name, or nothing changes.
        NotServable: `by` would give the name to themselves.
    """
    _check_reason(reason, "transfer")
    with transaction(guard.engine) as session:
        who = permit(guard, session, by, Act.TRANSFER)
        if owner is not None and owner == who.name:
            raise NotServable(f"{owner} cannot take {name!r} for themselves; ask somebody else.")
        old = claims.get(session, name)
        new = {
            "owner": old.owner if owner is None else owner,
            "prefix": old.prefix if prefix is None else prefix,
        }
        if (old.owner, old.prefix) == (new["owner"], new["prefix"]):
            raise InputError(f"{name!r} is theirs already.", code="transfer_nothing")
        other = claims.of_prefix(session, old.bucket, str(new["prefix"]))
        if other is not None and other.name != name:
            raise InputError(
                f"s3://{other.bucket}/{other.prefix} is served as {other.name!r}; a folder has one "
                "name.",
                code="prefix_has_name",
            )
        claims.change(session, name, **new)
        facts = {"from": {"owner": old.owner, "prefix": old.prefix}, "to": new}
        note(guard, session, who, Act.TRANSFER, name, reason, facts)
        moved = claims.get(session, name)
    settle(guard)
    return moved


def claimed(guard: Guard) -> list[ClaimRow]:
    """Every served name that was claimed, and whose it is."""
    with reading(guard.engine) as session:
        return claims.list_all(session)


def _check_reason(reason: str, act: str) -> None:
    if not reason.strip():
        raise InputError(
            f"A {act} needs a reason; give one that the next reader can check.",
            code="name_act_no_reason",
        )


def _before(guard: Guard, name: str) -> ScanRow:
    """The newest artifact that was served before the one that is, or was last, and still may be."""
    with reading(guard.engine) as session:
        rows = publications.of_name(session, name)
    last = rows[0].digest if rows else ""
    for row in rows[1:]:
        if row.digest == last:
            continue
        try:
            target = _finished(guard, name, row.digest)
            publish.view(guard, target)
        except NotServable:
            continue  # revoked or expired: the one before it, perhaps
        return target
    raise InputError(
        f"There is no earlier version of {name!r} that may be served; scan a model again.",
        code="rollback_nothing",
    )


def _named(guard: Guard, name: str, to: str) -> ScanRow:
    with reading(guard.engine) as session:
        row = publications.find(session, name, to)
        if row is None:
            scan = scans.get(session, to)
            if scan.name != name:
                raise InputError(
                    f"Scan {scan.id} is about {scan.name!r}, not {name!r}.", code="rollback_nothing"
                )
            return scan
    return _finished(guard, name, row.digest)


def _finished(guard: Guard, name: str, digest: str) -> ScanRow:
    with reading(guard.engine) as session:
        found = [
            scan
            for scan in scans.for_digest(session, digest)
            if scan.canonical_digest == digest
            and scan.name == name
            and scan.state is ScanState.DONE
            and scan.verdict_id
        ]
    if not found:
        raise NotServable(f"No finished scan of {digest[:12]} is there; scan it again.")
    return found[0]
