"""The invariants that hold after every step; their numbers are those of docs/architecture.md.

All of it is read anew from the database's file and from what is served, by queries of its own: what
the service believes does not count.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from benchmarks.simulation import counting
from benchmarks.simulation.approvals import Approvals, artifacts
from benchmarks.simulation.counting import ledger_row
from benchmarks.simulation.serving import Served, served
from benchmarks.simulation.steps import Schedule
from guard.attest import dsse
from guard.attest.chain import NOUN, differences, expected_hash
from guard.attest.keys import TrustedKeys
from guard.attest.links import broken
from guard.attest.views import VerdictView, read_verdict
from guard.core.errors import GuardError
from guard.core.ledger import GENESIS
from guard.core.states import SERVABLE_VERDICTS, ScanState, may_move
from guard.store.rows import LedgerRow

LONGEST = timedelta(days=30)  # of all policies of the simulation
EXTENSION = timedelta(days=1)


@dataclass(frozen=True)
class Violation:
    """An invariant that did not hold, by its number."""

    number: int
    text: str

    def __str__(self) -> str:
        return f"invariant {self.number}: {self.text}"


@dataclass
class Watch:
    """What was seen so far in one schedule."""

    run: Schedule
    seen: dict[str, dict[int, tuple[Any, ...]]] = field(default_factory=dict)
    ledger: list[LedgerRow] = field(default_factory=list)
    views: dict[str, VerdictView] = field(default_factory=dict)
    since: dict[str, int] = field(default_factory=dict)  # the step in which a row appeared
    keys: dict[str, bytes] = field(default_factory=dict)  # that were ever trusted
    states: dict[str, ScanState] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    versions: dict[tuple[str, str], str] = field(default_factory=dict)
    claims: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    acts: dict[str, int] = field(default_factory=dict)
    top: dict[tuple[str, str], int] = field(default_factory=dict)
    active: dict[str, str] = field(default_factory=dict)
    released: set[tuple[str, str, str, str]] = field(default_factory=set)
    published: set[str] = field(default_factory=set)  # publications that are active
    evidence: dict[str, str] = field(default_factory=dict)  # its artifact by its key
    changes: int = -1

    def __post_init__(self) -> None:
        world = self.run.world
        self.path = world.data / "guard.db"
        self.approvals = Approvals(self.run, self.views)
        with self.database() as db:
            self.append_only = [
                row[0]
                for row in db.execute(
                    "SELECT DISTINCT tbl_name FROM sqlite_master "
                    "WHERE type = 'trigger' AND name LIKE '%_no_delete'"
                )
            ]

    @property
    def step(self) -> int:
        return self.run.world.turns.step

    @property
    def file(self) -> TrustedKeys:
        return TrustedKeys.load(self.run.world.guard.settings.trusted_keys_file)

    def database(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)

    def look(self) -> list[Violation]:
        """Check everything after a step; nothing is read where nothing was changed."""
        changes = self.run.world.turns.changes
        if changes == self.changes and not self.run.reconciled:
            return []
        self.changes = changes
        db = self.database()
        try:
            return [Violation(number, text) for number, text in self._all(db)]
        finally:
            db.close()

    def _all(self, db: sqlite3.Connection) -> Iterator[tuple[int, str]]:
        self.keys.update(self.file.keys)
        yield from self._grows(db)
        yield from counting.keys(db, self.run.world.guard.trusted)
        yield from self._chain()
        yield from self._scans(db)
        yield from self.approvals.look(db)
        yield from self._names(db)
        yield from self._serving(db)
        yield from self._taken_down(db)

    # 8: append-only tables only grow.

    def _grows(self, db: sqlite3.Connection) -> Iterator[tuple[int, str]]:
        for table in self.append_only:
            mine = self.seen.setdefault(table, {})
            found = db.execute(
                f"SELECT rowid, * FROM {table} WHERE rowid > ?",  # noqa: S608 - names of the schema
                (max(mine, default=0),),
            )
            columns, fresh = [column[0] for column in found.description], found.fetchall()
            mine.update({row[0]: row for row in fresh})
            count = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            if count != len(mine):
                yield 8, f"{table} has {count} rows, and {len(mine)} were written"
            rows = [dict(zip(columns, row, strict=True)) for row in fresh]
            if table == "verdicts":
                self.ledger += [ledger_row(row) for row in rows]
                self.since.update({row["id"]: self.step for row in rows})
            elif table == "revocations":
                self.since.update({f"revoked {row['digest']}": self.step for row in rows})
            elif table == "evidence":
                self.evidence.update({row["key"]: row["artifact_digest"] for row in rows})

    def whole(self) -> list[Violation]:
        """Compare every row of the append-only tables with what was first read."""
        with self.database() as db:
            return [
                Violation(8, f"row {row[0]} of {table} was changed or deleted")
                for table in self.append_only
                for row in set(self.seen[table].values()).symmetric_difference(
                    db.execute(f"SELECT rowid, * FROM {table}")  # noqa: S608
                )
            ]

    # 6 and 7: the ledger is a chain of signed rows; verdicts hold no longer than they may.

    def _chain(self) -> Iterator[tuple[int, str]]:
        fresh = self.ledger[len(self.views) :]
        if not fresh:
            return
        before = self.ledger[len(self.views) - 1] if self.views else None
        start = (before.seq, before.hash) if before else (0, GENESIS)
        yield from ((6, text) for text in broken(fresh, expected_hash, NOUN, *start))
        for row in fresh:
            try:
                view = read_verdict(dsse.verify(row.envelope, TrustedKeys(self.keys)))
            except GuardError as error:
                yield 6, f"verdict {row.seq}: {error.sentence}"
                continue
            if wrong := differences(row, view):
                yield 6, f"verdict {row.seq}: {wrong} differ from what was signed"
            self.views[row.id] = view
            yield from self._terms(row, view)

    def _terms(self, row: LedgerRow, view: VerdictView) -> Iterator[tuple[int, str]]:
        kind, until = view.basis["kind"], row.issued_at + LONGEST
        if kind in {"reuse", "extension"}:
            old = self.views.get(str(view.basis["verdict"]))
            if old is None or old.digest != view.digest:
                yield 7, f"verdict {row.seq} rests on no verdict about its artifact"
            else:
                until = old.expires_at + (EXTENSION if kind == "extension" else timedelta())
        if row.expires_at > until:
            yield 7, f"verdict {row.seq} ({kind}) holds until {row.expires_at}, after {until}"
        for key in view.facts.evidence:
            if self.evidence.get(key) != view.digest:
                yield 7, f"verdict {row.seq} names evidence {key[:8]} that is not stored about it"
        others = [
            one
            for one in self.ledger[: row.seq - 1]
            if one.scan_id == row.scan_id
            and one.id in self.views
            and self.views[one.id].basis["kind"] != "review"
        ]
        if kind != "review" and others:
            yield 9, f"scan {row.scan_id[:8]} was decided twice"

    # 9: scans move as they may, and only their holder moves them.

    def _scans(self, db: sqlite3.Connection) -> Iterator[tuple[int, str]]:
        for scan_id, text, token in db.execute("SELECT id, state, lease_token FROM scans"):
            state, before = ScanState(text), self.states.get(scan_id, ScanState.QUEUED)
            if state not in _reachable(before):
                yield 9, f"scan {scan_id[:8]} went from {before} to {state}"
            if token < self.tokens.get(scan_id, 0):
                yield 9, f"the lease token of scan {scan_id[:8]} went back"
            self.states[scan_id], self.tokens[scan_id] = state, token

    # 14: what holds stays in service. `counting` checks that, and 15.

    def _taken_down(self, db: sqlite3.Connection) -> Iterator[tuple[int, str]]:
        yield from counting.taken_down(
            db,
            self.published,
            self.ledger,
            self.run.world.guard.trusted,
            now=self.run.world.clock,
            since=self.since,
            born=min((worker.born for worker in self.run.ran), default=0),
        )
        active = db.execute("SELECT id FROM publications WHERE state = 'active'")
        self.published = {row[0] for row in active}

    # 3, 4 and 5: names belong to prefixes, uploads have an order, versions are used once.

    def _names(self, db: sqlite3.Connection) -> Iterator[tuple[int, str]]:
        transfers = dict(
            db.execute("SELECT subject, count(*) FROM acts WHERE act = 'transfer' GROUP BY subject")
        )
        rolled, newest = {}, {}
        for row in db.execute(
            "SELECT name, bucket, prefix, owner, rolled_back_to, newest_scan_id FROM claims"
        ):
            name, *claim, back, scan = row
            rolled[name], newest[name] = back, scan
            known = self.claims.get(name)
            if known not in {None, tuple(claim)} and transfers.get(name) == self.acts.get(name):
                yield 3, f"{name} went from {known} to {claim} without a transfer"
            self.claims[name] = tuple(claim)
        self.acts = transfers
        active: dict[str, str] = {}
        for name, version, digest, state in db.execute(
            "SELECT name, version, digest, state FROM publications ORDER BY at, rowid"
        ):
            if self.versions.setdefault((name, version), digest) != digest:
                yield 5, f"{name} {version} was {self.versions[name, version][:8]}, is {digest[:8]}"
            if state == "active":
                active[name] = digest
        for name, digest in active.items():
            if self.active.get(name) != digest:
                yield from self._replaced(db, name, digest, rolled.get(name), newest.get(name))
        self.active = active

    def _replaced(
        self,
        db: sqlite3.Connection,
        name: str,
        digest: str,
        rolled_back_to: str | None,
        newest: str | None,
    ) -> Iterator[tuple[int, str]]:
        """A name has got another artifact.

        The same bytes may have been uploaded before and after another model, and only one of the
        uploads be published yet: of those the service's record says which, and it can name none
        other, since the digest must be the upload's.
        """
        _, prefix, _ = self.claims.get(name, (None, None, None))
        finished = {
            version
            for (version,) in db.execute(
                "SELECT version_id FROM scans WHERE name = ? AND parent_scan_id IS NULL "
                "AND verdict_id IS NOT NULL",
                (name,),
            )
        }
        mine = [
            upload
            for upload in self.run.uploads
            if digest in artifacts(self.run, upload)
            and any(version.startswith(upload.version) for version in finished)
        ]
        own = [one for one in mine if f"{one.key.rpartition('/')[0]}/" == prefix]
        if digest == rolled_back_to:
            return
        if not own:
            yield 3, f"{name} of {prefix} got {digest[:8]}, uploaded under {[m.key for m in mine]}"
            return
        (version,) = db.execute(
            "SELECT version_id FROM scans WHERE id = ?", (newest,)
        ).fetchone() or ("",)
        named = [one for one in own if version and version.startswith(one.version)]
        number = max(one.number for one in named or own)
        top = self.top.get((name, str(prefix)), -1)
        if number < top:
            yield 4, f"{name} went from upload {top} back to {number} without a rollback"
        self.top[name, str(prefix)] = max(top, number)

    # 1 and 2: what is served, and after a pass of reconcile what still is.

    def _serving(self, db: sqlite3.Connection) -> Iterator[tuple[int, str]]:
        found = []
        for name, version, problem, one in served(self.run.world.served, self.keys):
            if one is None:
                yield 1, f"{name} {version}: {problem}"
                continue
            found.append(one)
            key = (one.name, one.version, one.digest, one.release.verdict_id)
            if key not in self.released:
                self.released.add(key)
                yield from self._release(one)
        if self.run.reconciled:
            yield from self._reconciled(db, found)

    def _release(self, one: Served) -> Iterator[tuple[int, str]]:
        view, release = self.views.get(one.release.verdict_id), one.release
        where = f"{one.name} {one.version} ({one.digest[:8]})"
        if view is None or view.digest != one.digest or view.name != one.name:
            yield 1, f"{where} is served without a verdict about it"
            return
        if view.verdict not in SERVABLE_VERDICTS:
            yield 1, f"{where} is served under the verdict {view.verdict}"
        if not release.issued_at < view.expires_at or release.expires_at != view.expires_at:
            yield 1, f"{where} was released for longer than its verdict holds"
        # What was known before any worker of this step began, none of them may overlook.
        born = min((worker.born for worker in self.run.ran), default=0)
        newest = counting.counted(self.ledger, one.digest)
        if newest.verdict not in SERVABLE_VERDICTS and self.since[newest.id] < born:
            yield 1, f"{where} was released though its newest verdict is {newest.verdict}"
        if self.since.get(f"revoked {one.digest}", born) < born:
            yield 1, f"{where} was released after it had been withdrawn"

    def _reconciled(self, db: sqlite3.Connection, found: list[Served]) -> Iterator[tuple[int, str]]:
        now, trusted = self.run.world.clock, self.file
        yield from counting.keys(db, trusted)
        revoked = {key.split()[1] for key in self.since if key.startswith("revoked ")}
        stuck = {
            row[0]
            for row in db.execute(
                "SELECT subject FROM alarms WHERE kind = 'serving_stuck' AND cleared_at IS NULL"
            )
        }
        under_way = set(
            db.execute("SELECT name, canonical_digest FROM scans WHERE state = 'publishing'")
        )
        rows = set(
            db.execute("SELECT name, version, digest FROM publications WHERE state = 'active'")
        )
        for one in found:
            where = f"{one.name} {one.version} ({one.digest[:8]})"
            if f"{one.name} {one.version}" in stuck:
                continue
            latest = counting.counted(self.ledger, one.digest)
            if latest.verdict not in SERVABLE_VERDICTS:
                yield 2, f"{where} is served though its newest verdict is {latest.verdict}"
            if latest.expires_at <= now:
                yield 2, f"{where} is served though its verdict has expired"
            if one.digest in revoked:
                yield 2, f"{where} is served though it was withdrawn"
            if not counting.signed(latest, trusted):
                yield 2, f"{where} is served though its verdict's key is not trusted"
            published = (one.name, one.version, one.digest) in rows
            if not published and (one.name, one.digest) not in under_way:
                yield 2, f"{where} is served and was not published"


def _reachable(state: ScanState) -> frozenset[ScanState]:
    """Every state that a scan may come to from this one."""
    if state not in _REACHABLE:
        found, to_do = {state}, [state]
        while to_do:
            here = to_do.pop()
            fresh = {one for one in ScanState if may_move(here, one)} - found
            if here is ScanState.FAILED:
                fresh = set()  # only a person's new try leads on, and none is made here
            found |= fresh
            to_do += fresh
        _REACHABLE[state] = frozenset(found)
    return _REACHABLE[state]


_REACHABLE: dict[ScanState, frozenset[ScanState]] = {}
