"""Sign what the ledger does not hold yet, and checkpoint its head: after each append, best effort.

A crash between an append and its checkpoint leaves a database that is newer than the checkpoint,
which is no fault; `tend` catches up.
"""

import uuid

import structlog

from guard.attest import acts, dsse
from guard.attest.checkpoint import Checkpoint, Heads, write_line
from guard.attest.keys import TrustedKeys
from guard.core.digests import sha256
from guard.core.errors import GuardError, InputError, IntegrityMismatch, Unavailable
from guard.core.ledger import GENESIS
from guard.flow import _trust
from guard.flow._acts import BATCH, append, has_key
from guard.flow._checkpoints import CheckpointStore, store_of
from guard.flow._standing import Standing, compare, standing
from guard.flow.context import Guard
from guard.store import alarms, ledger_acts
from guard.store.rows import RevocationRow
from guard.store.session import reading, transaction

SUBJECT = "ledger"
LEFT_OVER = "distrusted_key_in_file"
log = structlog.get_logger()


def seal(guard: Guard) -> bool:
    """Bring unsigned revocations and acts into the chain; checkpoint it where there is news.

    Never raises: what was committed stands. An alarm says what could not be done.

    Returns:
        Whether it was done, or there was nothing to do.
    """
    try:
        _seal(guard)
        _clear(guard, "checkpoint_failed", "ledger_broken")
    except GuardError as error:
        log.warning("ledger_not_sealed", error=error.sentence)
        broken = error.code == "ledger_broken"
        _raise(guard, "ledger_broken" if broken else "checkpoint_failed", error.sentence)
        return False
    return True


def settle(guard: Guard) -> None:
    """`seal` where this process has the key; otherwise the one that has it does so soon."""
    if has_key(guard):
        seal(guard)


def open_ledger(guard: Guard) -> None:
    """Write the first checkpoint where there is none yet; what is appended later follows it.

    Raises:
        Unavailable: it could not be written.
        IntegrityMismatch: the ledger is broken already.
    """
    if not standing(guard).opened:
        _seal(guard, opening=True)


def checkpoint(guard: Guard) -> None:
    """Write a checkpoint though there is no news, so that this process's key signs the newest.

    Raises:
        Unavailable: it could not be written.
        IntegrityMismatch: the ledger is broken already.
    """
    store = store_of(guard)
    with store.writing():
        write_checkpoint(guard, store, compare(guard, store, guard.trusted).check())


def tend(guard: Guard) -> None:
    """What `reconcile` does about the ledger: catch up, and raise an alarm for what is missing.

    Raises:
        Unavailable: the database cannot be read.
    """
    _complete(guard)
    found = standing(guard, patient=True)
    if found.broken:
        _raise(guard, "ledger_broken", " ".join(found.broken))
    elif _news(found):
        seal(guard)
    else:
        _clear(guard, "ledger_broken", "checkpoint_failed")
    if found.missing:
        _raise(guard, "revocation_missing", " ".join(found.missing))
    else:
        _clear(guard, "revocation_missing")


def record(guard: Guard, *found: acts.Act) -> None:
    """Sign acts and append them to the chain in one commit; `seal` comes after it.

    Raises:
        InputError: this process has no trusted signing key.
    """
    with transaction(guard.engine) as session:
        for act in found:
            append(guard, session, act)


def about_ledger(guard: Guard, kind: str, reason: str, by: str) -> acts.Act:
    """An act about the ledger as it is: it takes over the keys that are trusted now."""
    return acts.Act(
        act_id=uuid.uuid4().hex,
        kind=kind,
        subject=GENESIS,
        reason=reason,
        by=by,
        at=guard.now(),
        keys={key_id: raw.hex() for key_id, raw in guard.trusted.keys.items()},
    )


def write_checkpoint(
    guard: Guard, store: CheckpointStore, found: Standing, accepted: Heads | None = None
) -> None:
    """Write the heads that were found as the next checkpoint, inside `store.writing()`.

    Args:
        accepted: heads that a person takes as they are.

    Raises:
        Unavailable: the file, the bucket or the database did not take it.
    """
    before = found.newest
    done = 0 if before is None or accepted else before.heads.acts.seq
    revoked = {row.subject for row in found.acts if row.kind == "revocation" and row.seq > done}
    item = Checkpoint(
        number=max(before.number if before else 0, found.noted) + 1,
        heads=found.heads,
        accepted=accepted or (before.accepted if before else Heads()),
        revoked=tuple(sorted(revoked)),
        previous=found.trail.digest,
        at=guard.now(),
    )
    line = write_line(item, guard.signer)
    store.append(line, found.trail.size)
    _publish(guard, store, item.number, line)


def unrecorded(found: Standing, trusted: TrustedKeys) -> list[str]:
    """Each key that is trusted though no act of the ledger says so, as a sentence."""
    if not found.opened:
        return []
    known = recorded_keys(found)
    return [
        f"Key {key_id[:16]} is trusted, but no recorded act made it so: somebody edited the file "
        "of trusted keys."
        for key_id in sorted(trusted.keys)
        if key_id not in known
    ]


def recorded_keys(found: Standing) -> dict[str, str]:
    """The public keys, in hexadecimal by key id, that the acts leave trusted."""
    keys: dict[str, str] = {}
    for row in found.acts:
        try:
            act = acts.read_act(dsse.payload(row.envelope))
        except IntegrityMismatch:
            continue  # `acts.unsigned` names it
        keys.update({key_id: str(raw) for key_id, raw in act.keys.items()})
        if act.kind == "distrust":
            keys.pop(act.subject, None)
    return keys


def _seal(guard: Guard, *, opening: bool = False) -> None:
    store, trusted = store_of(guard), guard.trusted
    with store.writing():
        found = compare(guard, store, trusted).check()
        if not _news(found) and not (opening and found.newest is None):
            return
        if found.newest is None:
            # The first one stands before the first act, so that an act without any checkpoint is
            # always a checkpoint that was deleted.
            write_checkpoint(guard, store, found)
        if _unopened(found):
            record(guard, about_ledger(guard, "open", "The ledger's first checkpoint.", "guard"))
        new = [_revocation(row) for row in _unsigned(found)]
        new += [acts.of_done(row) for row in found.unsealed]
        for start in range(0, len(new), BATCH):
            record(guard, *new[start : start + BATCH])
        found = compare(guard, store, trusted).check()
        if found.newest is None or found.newest.heads != found.heads:
            write_checkpoint(guard, store, found)
        elif found.trail.newest is not None:
            _publish(guard, store, found.trail.newest.number, found.trail.line)


def _complete(guard: Guard) -> None:
    try:
        _trust.complete(guard)
    except (InputError, Unavailable) as error:
        left = ", ".join(key_id[:16] for key_id in _trust.left_over(guard))
        detail = f"The file of trusted keys still holds {left}, which an act distrusts"
        _raise(guard, LEFT_OVER, f"{detail}: {error.sentence}")
    else:
        _clear(guard, LEFT_OVER)


def _news(found: Standing) -> bool:
    if found.unsealed:
        return True
    if found.empty:
        return False
    behind = found.newest is None or found.newest.heads != found.heads
    late = found.newest is not None and found.noted < found.newest.number
    return behind or late or not found.copied or _unopened(found) or bool(_unsigned(found))


def _unopened(found: Standing) -> bool:
    """Whether there never was an act: also where a process died behind the first checkpoint."""
    return not found.acts and (found.newest is None or not found.newest.heads.acts.seq)


def _unsigned(found: Standing) -> list[RevocationRow]:
    signed = {row.id for row in found.acts}
    return [row for row in reversed(found.table) if row.id not in signed]


def _revocation(row: RevocationRow) -> acts.Act:
    return acts.Act(
        act_id=row.id,
        kind="revocation",
        subject=row.digest,
        reason=row.reason,
        by=row.by,
        at=row.at,
        keys={},
    )


def _publish(guard: Guard, store: CheckpointStore, number: int, line: bytes) -> None:
    """Copy a line that the file has to its copies, then note it in the database."""
    for copy in store.copies:
        copy.put(number, line)
    with transaction(guard.engine) as session:
        ledger_acts.note_checkpoint(session, number, sha256(line), guard.now())


def _raise(guard: Guard, kind: str, detail: str) -> None:
    try:
        with transaction(guard.engine) as session:
            alarms.raise_(session, kind, SUBJECT, detail, guard.now())
    except GuardError as error:
        log.exception("alarm_not_raised", kind=kind, error=error.sentence)


def _clear(guard: Guard, *kinds: str) -> None:
    with reading(guard.engine) as session:
        standing_alarms = {row.kind for row in alarms.open_alarms(session)}
    if standing_alarms.isdisjoint(kinds):
        return
    with transaction(guard.engine) as session:
        for kind in kinds:
            alarms.clear(session, kind, SUBJECT, guard.now())
