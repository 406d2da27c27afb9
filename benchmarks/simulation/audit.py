"""The end of a schedule: crashes stop, all comes to rest, and then must be as it should be."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from benchmarks.simulation.counting import counted, signed, when
from benchmarks.simulation.serving import served
from benchmarks.simulation.steps import Schedule, Uploaded
from benchmarks.simulation.turns import Odds
from benchmarks.simulation.watch import Violation, Watch
from benchmarks.simulation.world import BUCKET
from guard.core.digests import sha256
from guard.core.states import SERVABLE_VERDICTS
from guard.flow._standing import standing
from guard.flow.verify import verify

ROUNDS, HALF = 40, 0.5
PAUSE = 35.0  # seconds between rounds: longer than a lease
#: Alarms that say why something is not served.
SAID = frozenset(
    {"publish_refused", "dead_letter", "serving_missing", "serving_closed", "verdict_expiring",
     "rescan_failed", "ledger_broken", "checkpoint_failed"}
)  # fmt: skip


def rest(run: Schedule, watch: Watch) -> Iterator[Violation]:
    """Let everything come to an end, without another crash or outage."""
    turns = run.world.turns
    turns.odds = Odds()
    run.heal()
    while turns.waiting:
        turns.step += 1
        run.ran = []
        run.go_on()
        yield from watch.look()
    for number in range(ROUNDS):
        turns.step += 1
        run.ran = []
        while run.world.events:
            run.notice()
        if number in {0, ROUNDS // 2}:
            run.sweep()
        work(run)
        if _waiting(watch):
            run.pass_time(PAUSE)
            run.rescue()
            continue
        if run.rng.random() < HALF:
            run.reconcile()
            yield from watch.look()
        # All has come to an end; what beat still finds to do must come to an end as well.
        run.renew()
        busy = work(run)
        run.reconcile()
        yield from watch.look()
        if not work(run) and not busy:
            run.pass_time(PAUSE)  # the lease of a process that was killed ends
            return
    yield Violation(11, f"after {ROUNDS} rounds there still are {_waiting(watch)}")


def final(run: Schedule, watch: Watch, excused: Counter[str]) -> Iterator[Violation]:
    """What holds once everything rests."""
    yield from watch.whole()
    db = watch.database()
    db.row_factory = sqlite3.Row
    try:
        yield from _finished(run, db)
        yield from _should_be_served(run, watch, db, excused)
    finally:
        db.close()
    guard = run.world.guard
    ledger = standing(guard, whole=True, patient=True)
    yield from (Violation(6, text) for text in ledger.broken)
    if not ledger.empty and (ledger.newest is None or ledger.newest.heads != ledger.heads):
        yield Violation(6, "the newest checkpoint is behind the ledger, which rests")
    if len(guard.trusted.keys) == len(watch.keys):  # otherwise old rows count no longer
        yield from (Violation(6, f"guard verify: {text}") for text in verify(guard))
    for path in (run.world.data / "blobs").glob("??/*"):
        if sha256(path.read_bytes()) != path.name:
            yield Violation(12, f"blob {path.name[:12]} holds other bytes")
    yield from (Violation(0, text) for text in run.unexpected)


def catch_up(run: Schedule) -> None:
    """A quiet hour: what was uploaded is worked on, and nobody dies."""
    turns = run.world.turns
    odds, turns.odds = turns.odds, Odds()
    while turns.waiting:
        run.go_on()
    for _ in range(2):
        while run.world.events:
            run.notice()
        run.rescue()
        work(run)
        run.pass_time(PAUSE)
    turns.odds = odds


def work(run: Schedule) -> bool:
    """Do all that is due; whether there was anything."""
    busy = False
    for _ in range(200):
        run.relay()
        if not run.world.broker:
            return busy
        busy = True
        while run.world.broker:
            run.take(0)
    return busy


def _waiting(watch: Watch) -> list[Any]:
    """Messages that are not sent, scans that are not at an end, notices that are not settled."""
    db = watch.database()
    try:
        return db.execute(
            "SELECT 'message', task FROM outbox WHERE sent_at IS NULL "
            "UNION ALL SELECT state, id FROM scans WHERE state NOT IN ('done', 'failed') "
            "UNION ALL SELECT state, id FROM nominations WHERE state = 'new'"
        ).fetchall()
    finally:
        db.close()


def _finished(run: Schedule, db: sqlite3.Connection) -> Iterator[Violation]:
    """11: every upload has a verdict, a refusal or a dead letter; 12: nothing is half done."""
    letters = {row[0] for row in db.execute("SELECT payload FROM dead_letters")}
    for scan in db.execute("SELECT * FROM scans"):
        told = scan["verdict_id"] or scan["error"] or any(scan["id"] in one for one in letters)
        if scan["state"] not in {"done", "failed"} or not told:
            yield Violation(11, f"scan {scan['id'][:8]} rests in {scan['state']} without an end")
        if scan["lease_until"] and when(scan["lease_until"]) > run.world.clock:
            yield Violation(12, f"scan {scan['id'][:8]} is still held")
    for row in db.execute("SELECT key, version_id FROM nominations WHERE state = 'new'"):
        yield Violation(11, f"the nomination of {tuple(row)} was never settled")
    known = {
        (row[0], row[1])
        for row in db.execute("SELECT key, version_id FROM nominations WHERE state != 'ignored'")
    } | {(row[0], row[1]) for row in db.execute("SELECT key, version_id FROM scans")}
    for (bucket, key), versions in run.world.store.objects.items():
        newest = versions[-1]
        if bucket != BUCKET or key.endswith(".json") or newest.data is None:
            continue
        if (key, newest.id) not in known and (key, None) not in known:
            yield Violation(11, f"nobody ever looked at {key} {newest.id}")


def _should_be_served(
    run: Schedule, watch: Watch, db: sqlite3.Connection, excused: Counter[str]
) -> Iterator[Violation]:
    """13: of each name the newest upload that may be served is served, or an alarm says why not."""
    answers = {one.name: one.digest for _, _, _, one in served(run.world.served, watch.keys) if one}
    alarms = [
        f"{row[0]} {row[1]}"
        for row in db.execute("SELECT subject, detail, kind FROM alarms WHERE cleared_at IS NULL")
        if row[2] in SAID
    ]
    for claim in db.execute("SELECT * FROM claims"):
        best = _best(run, watch, db, claim)
        if best is None:
            continue
        number, digest, scan_id = best
        newest = _number(run, db, claim["newest_scan_id"])
        if claim["rolled_back_to"] or number < newest:
            excused["rolled back, or older than what was published"] += 1
        elif answers.get(claim["name"]) != digest:
            words = (f"{claim['name']} ", digest, scan_id)
            if any(word in alarm for alarm in alarms for word in words):
                excused["an alarm says why"] += 1
                continue
            now = str(answers.get(claim["name"]))[:8]
            wanted = f"upload {number} ({digest[:8]}, scan {scan_id[:8]})"
            yield Violation(13, f"{claim['name']} serves {now}, not {wanted}")
        else:
            excused["(served)"] += 1


def _best(
    run: Schedule, watch: Watch, db: sqlite3.Connection, claim: sqlite3.Row
) -> tuple[int, str, str] | None:
    """The newest upload of a name that may be served: number, digest, scan."""
    found = []
    for root in db.execute(
        "SELECT * FROM scans WHERE name = ? AND bucket = ? AND parent_scan_id IS NULL "
        "AND submitted_by IS ?",
        (claim["name"], claim["bucket"], claim["owner"]),
    ):
        upload = _upload(run, root)
        if upload is None or f"{root['key'].rpartition('/')[0]}/" != claim["prefix"]:
            continue
        children = db.execute("SELECT * FROM scans WHERE parent_scan_id = ?", (root["id"],))
        for scan in (root, *children):
            if '"rescan"' in scan["detail"]:
                continue
            row = next((one for one in watch.ledger if one.id == scan["verdict_id"]), None)
            if row is None or row.verdict not in SERVABLE_VERDICTS:
                continue
            if _may(run, watch, row.artifact_digest, row.expires_at):
                found.append((upload.number, row.artifact_digest, scan["id"]))
    return max(found, default=None)


def _may(run: Schedule, watch: Watch, digest: str, until: datetime) -> bool:
    latest, now = counted(watch.ledger, digest), run.world.clock
    return (
        signed(latest, run.world.guard.trusted)
        and latest.verdict in SERVABLE_VERDICTS
        and now < latest.expires_at
        and now < until
        and f"revoked {digest}" not in watch.since
    )


def _upload(run: Schedule, root: sqlite3.Row) -> Uploaded | None:
    pin = str(root["version_id"])
    return next((one for one in run.uploads if pin.startswith(one.version)), None)


def _number(run: Schedule, db: sqlite3.Connection, scan_id: str | None) -> int:
    row = db.execute("SELECT * FROM scans WHERE id = ?", (scan_id,)).fetchone()
    upload = None if row is None else _upload(run, row)
    return -1 if upload is None else upload.number
