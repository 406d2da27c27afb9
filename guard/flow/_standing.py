"""How the ledger stands against its checkpoints, and what it says is revoked.

Whoever asks the gate reads the revocations here, so that nobody gets them without the comparison.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.orm import Session

from guard.attest import acts, chain, links
from guard.attest.checkpoint import (
    NO_HEAD,
    Checkpoint,
    Head,
    Heads,
    Trail,
    read_line,
    read_trail,
)
from guard.attest.keys import TrustedKeys
from guard.core.digests import sha256
from guard.core.errors import IntegrityMismatch, Unavailable
from guard.core.ledger import Link
from guard.flow._checkpoints import CheckpointStore, store_of
from guard.flow.context import Guard
from guard.store import acts as done
from guard.store import ledger, ledger_acts, revocations
from guard.store.rows import ActRow, CheckpointRow, LedgerActRow, RevocationRow
from guard.store.session import reading

BATCH = 500  # ledger rows in memory at once
R = TypeVar("R", bound=Link)
WAY_OUT = (
    "nothing is published until the right database and checkpoints are back, or until "
    "`guard ledger accept` takes what is there"
)

NO_KEYS = (
    "No key is trusted though the ledger is not empty: the file of trusted keys was emptied or is "
    "missing; put it back, or name the key with `guard keys trust`."
)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What was found.

    `broken` are the reasons, one sentence each, why nothing may be published; `missing` names what
    was deleted without being able to do harm. `newest` is the newest checkpoint anywhere; `trail`
    the file. `copied` is whether each copy, if there are any, has the newest one. `acts` are those
    about the ledger itself, `unsealed` what principals did that is not in the chain yet.
    """

    heads: Heads
    acts: tuple[LedgerActRow, ...]
    unsealed: tuple[ActRow, ...]
    table: tuple[RevocationRow, ...]
    revoked: frozenset[str]
    broken: tuple[str, ...]
    missing: tuple[str, ...]
    trail: Trail
    newest: Checkpoint | None
    noted: int
    copied: bool

    def check(self) -> "Standing":
        """Itself, if something may be published from this ledger.

        Raises:
            IntegrityMismatch: nothing may.
        """
        if self.broken:
            raise IntegrityMismatch(self.broken[0], code="ledger_broken")
        return self

    @property
    def opened(self) -> bool:
        """Whether this ledger ever had a checkpoint or an act."""
        return bool(self.newest or self.heads.acts.seq or self.noted)

    @property
    def empty(self) -> bool:
        """Whether there has never been anything in this ledger, here or in its checkpoints."""
        return not (self.opened or self.table or self.heads.verdicts.seq or self.trail.size)


def standing(guard: Guard, *, whole: bool = False, patient: bool = False) -> Standing:
    """Compare the database with its checkpoints.

    Args:
        whole: hash every row of the ledger anew, as whoever publishes does.
        patient: checkpoints that cannot be read are a reason to publish nothing, and no error.

    Raises:
        Unavailable: the database cannot be read; unless `patient`, the file or the bucket.
    """
    return compare(guard, store_of(guard), guard.trusted, whole=whole, patient=patient)


def compare(
    guard: Guard,
    store: CheckpointStore,
    trusted: TrustedKeys,
    *,
    whole: bool = False,
    patient: bool = False,
) -> Standing:
    """As `standing`, with the caller's store and keys."""
    # In this order: each is written before the one that is read before it. So another process that
    # appends meanwhile makes the database newer than its checkpoint, never older.
    with reading(guard.engine) as session:
        noted = ledger_acts.last_checkpoint(session)
    copies, away = _copies(store, noted, patient=patient)
    try:
        data = store.read()
    except Unavailable as error:
        if not patient:
            raise
        data, away = b"", error.sentence
    trail = read_trail(data, trusted)
    newest, copied, broken = _newest(trail, copies, noted, trusted)
    with reading(guard.engine) as session:
        rows = tuple(ledger_acts.own(session))
        unsealed = tuple(done.unsealed(session))
        table = tuple(revocations.list_all(session))
        heads = Heads(verdicts=_head(ledger.last(session)), acts=_head(ledger_acts.last(session)))
        if newest is not None:
            broken += _behind(session, newest, heads)
        elif heads.acts.seq and not broken:
            broken.append(f"There is no checkpoint of this ledger any more; {WAY_OUT}.")
        broken += _gaps(session, newest, rows, heads, whole=whole)
    if not trusted.keys and (heads.verdicts.seq or heads.acts.seq or trail.size):
        # The first key is trusted before it signs: who sees what it signed finds it by now.
        if (made_since := guard.trusted).keys:
            return compare(guard, store, made_since, whole=whole, patient=patient)
        broken = [NO_KEYS]
    signed = {row.subject for row in rows if row.kind == "revocation"}
    outside = trail.revoked | set(newest.revoked if newest else ())
    in_table = {row.digest for row in table}
    return Standing(
        heads=heads,
        acts=rows,
        unsealed=unsealed,
        table=table,
        revoked=frozenset(signed | outside | in_table),
        broken=tuple(broken) + ((away,) if away else ()),
        missing=tuple(
            f"The revocation of {digest[:12]} was deleted from the database; it stays revoked."
            for digest in sorted((signed | outside) - in_table)
        ),
        trail=trail,
        newest=newest,
        noted=noted.number if noted else 0,
        copied=copied,
    )


def _copies(
    store: CheckpointStore, noted: CheckpointRow | None, *, patient: bool
) -> tuple[list[tuple[str, bytes | None]], str]:
    """The newest line in each copy, and why one could not be asked."""
    found = list[tuple[str, bytes | None]]()
    for copy in store.copies:
        try:
            found.append((copy.called, copy.newest(noted.number - 1 if noted else 0)))
        except Unavailable as error:
            if not patient:
                raise
            where = copy.called[0].lower() + copy.called[1:]
            return found, f"The checkpoints in {where} could not be compared: {error.sentence}"
    return found, ""


def _newest(
    trail: Trail,
    copies: list[tuple[str, bytes | None]],
    noted: CheckpointRow | None,
    trusted: TrustedKeys,
) -> tuple[Checkpoint | None, bool, list[str]]:
    """The newest checkpoint of file and copies, whether all have it, and what is wrong."""
    newest, digest = trail.newest, trail.digest
    problems = [f"{sentence} {_way_out()}" for sentence in trail.problems]
    numbers = list[int]()
    for called, line in copies:
        if line is None:
            numbers.append(0)
            continue
        try:
            item = read_line(line, trusted)
        except IntegrityMismatch as error:
            problem = f"{called} holds a checkpoint that cannot be read: {error.sentence}"
            return newest, True, [*problems, problem]
        numbers.append(item.number)
        if newest is None or item.number > newest.number:
            problems.append(
                f"{called} holds checkpoint {item.number}, the file "
                f"{newest.number if newest else 'none'}: the file was deleted or replaced by an "
                f"older one; {WAY_OUT}."
            )
            newest, digest = item, sha256(line)
        elif item.number == newest.number and sha256(line) != digest:
            problems.append(
                f"{called} holds another checkpoint {item.number} than the file; {WAY_OUT}."
            )
    copied = newest is None or all(number >= newest.number for number in numbers)
    if noted is not None and (newest is None or noted.number > newest.number):
        problems.append(
            f"The database notes checkpoint {noted.number}, but the newest that is found is "
            f"{newest.number if newest else 'none'}: the checkpoints were deleted or replaced by "
            f"older ones; {WAY_OUT}."
        )
    elif noted is not None and newest and noted.number == newest.number and noted.digest != digest:
        problems.append(f"Checkpoint {noted.number} is not the one that was written; {WAY_OUT}.")
    return newest, copied, problems


def _behind(session: Session, newest: Checkpoint, heads: Heads) -> list[str]:
    """How the database falls behind its newest checkpoint, or differs from it."""
    row = ledger.at(session, newest.heads.verdicts.seq)
    act = ledger_acts.at(session, newest.heads.acts.seq)
    when = newest.at.isoformat(timespec="seconds")
    problems = []
    for name, wanted, head, found, expected in (
        ("verdicts", newest.heads.verdicts, heads.verdicts, row, row and chain.expected_hash(row)),
        ("acts", newest.heads.acts, heads.acts, act, act and acts.expected_act_hash(act)),
    ):
        if wanted.seq == 0:
            continue
        if found is None:
            problems.append(
                f"The ledger's {name} end at {head.seq}, but checkpoint {newest.number} of {when} "
                f"saw {wanted.seq}: the database was rolled back, cut or replaced; {WAY_OUT}."
            )
        elif found.hash != wanted.hash or (
            expected != wanted.hash and wanted.seq > _accepted(newest, name).seq
        ):
            problems.append(
                f"Row {wanted.seq} of the ledger's {name} is not the one that checkpoint "
                f"{newest.number} of {when} saw: the database was replaced or changed; {WAY_OUT}."
            )
    return problems


def _gaps(
    session: Session,
    newest: Checkpoint | None,
    rows: tuple[LedgerActRow, ...],
    heads: Heads,
    *,
    whole: bool,
) -> list[str]:
    """What is wrong inside the chains, behind what a person has accepted."""
    accepted = newest.accepted if newest else Heads()
    found: list[str] = []
    for chained, head, start, expected, noun in (
        (ledger_acts, heads.acts, accepted.acts, acts.expected_act_hash, acts.NOUN),
        (ledger, heads.verdicts, accepted.verdicts, chain.expected_hash, chain.NOUN),
    ):
        if whole:
            pages = _pages(session, chained.rows, start.seq)
            found += links.broken(pages, expected, noun, start.seq, start.hash)
        # To the head that was read, not to the end: PostgreSQL shows what was appended since.
        elif chained.count(session, start.seq, head.seq) != max(0, head.seq - start.seq):
            found.append(f"{noun}s are missing.")
    if not whole:  # the few that say what is revoked and which keys are trusted
        for row in (row for row in rows if row.seq > accepted.acts.seq):
            found += links.altered(row, acts.expected_act_hash, acts.NOUN)
    return [f"{sentence} {_way_out()}" for sentence in found]


def _pages(
    session: Session, rows: Callable[[Session, int, int], list[R]], after: int
) -> Iterator[R]:
    while page := rows(session, after, BATCH):
        yield from page
        after = page[-1].seq


def _accepted(newest: Checkpoint, name: str) -> Head:
    return newest.accepted.verdicts if name == "verdicts" else newest.accepted.acts


def _head(row: Link | None) -> Head:
    return Head(seq=row.seq, hash=row.hash) if row is not None else NO_HEAD


def _way_out() -> str:
    return WAY_OUT[0].upper() + WAY_OUT[1:] + "."
