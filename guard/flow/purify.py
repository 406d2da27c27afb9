"""Stage 4: the tournament, in which each candidate is a new artifact, vetted like an upload.

The parent scan waits in `purifying` while a candidate's own scan runs; the candidate's verdict
resumes it. The tournament does not wait for the reviewer of a held candidate, since the next
defense may give one that needs no review. Where the policy chains defenses, a candidate starts from
an earlier one, but the upload is the parent of both, and both are compared with it.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from guard.core.errors import Cancelled, MethodFailed
from guard.core.notes import Attempt, ScanNotes
from guard.core.plain import from_plain
from guard.core.purification import PurificationFacts
from guard.core.states import ScanState, Verdict
from guard.flow import _happened
from guard.flow._lease import Held
from guard.flow._observed import repair, trace_of
from guard.flow._warning import lets_through
from guard.flow.context import SPARE, Guard
from guard.flow.decide import case_of
from guard.flow.detect import SCAN_SEED
from guard.jobs.run import run_job
from guard.store import artifacts, ledger, outbox, scans
from guard.store.rows import ArtifactKind, ScanRow
from guard.store.session import reading, transaction
from guard.vetting import battery_secret
from guard.vetting.next_defense import Step, applicable, next_step
from guard.vetting.parent_comparison import replays_from
from guard.vetting.repair_probes import SECONDS

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def run(guard: Guard, held: Held) -> None:
    """Make the next candidate or end the tournament; wait while a candidate has no verdict."""
    scan = held.scan()
    if scan.state is not ScanState.PURIFYING or scan.canonical_digest is None:
        return
    tried = [_judged(guard, attempt) for attempt in scan.detail.candidates]
    verdicts = [attempt.verdict for attempt in tried if attempt.child is not None]
    # The policy purified it, or a reviewer cleared a held one while others were tried.
    won = any(verdict in (Verdict.PURIFIED, Verdict.CLEARED) for verdict in verdicts)
    if not won and None in verdicts:
        return
    rules = applicable(
        guard.policy.defenses,
        suspects=scan.detail.accused is not None,
        blind=scan.detail.blind,
    )
    step = None if won else next_step(rules, tried)
    if step is None:
        _end(guard, held, scan, tried, won=won)
        return
    repair(step.rule.name, "tried")
    try:
        made = _make_candidate(guard, held, scan, step)
    except Cancelled:
        raise
    except MethodFailed as error:
        repair(step.rule.name, "failed")
        tried.append(replace(step.attempt(), failed=error.sentence))
        with transaction(guard.engine) as session:
            held.check(session)
            _note(session, guard, held, scan, tried)
            outbox.add(session, "purify", {"scan_id": scan.id}, guard.now())
        return
    _record(guard, held, scan, tried, step, made)


@dataclass(frozen=True, kw_only=True)
class _Made:
    """A candidate whose canonical file is stored; `size` is in bytes."""

    digest: str
    size: int
    facts: PurificationFacts
    manifest: Mapping[str, Any]


def _make_candidate(guard: Guard, held: Held, scan: ScanRow, step: Step) -> _Made:
    """Run the defense in a job and store the model that it made.

    Raises:
        MethodFailed: it made no model.
    """
    request = _request(guard, scan, step)
    with guard.workspace() as out:
        answer = run_job(
            "purify",
            request,
            out,
            limits=guard.limits(guard.settings.scan_seconds + SECONDS + SPARE),
            on_progress=held.alive,
        )
        with (out / "model.safetensors").open("rb") as file:
            digest, size = guard.blobs.put(iter(lambda: file.read(1 << 20), b""))
    return _Made(
        digest=digest,
        size=size,
        facts=from_plain(PurificationFacts, answer["facts"]),
        manifest=answer["manifest"],
    )


def _request(guard: Guard, scan: ScanRow, step: Step) -> dict[str, Any]:
    """The job's request: paths and plain parameters."""
    parent, start = scan.canonical_digest or "", step.origin()
    evidence = case_of(guard, scan).evidence
    wanted = [
        f.trigger_digest
        for item in evidence
        for f in item.findings
        if f.suspicious and f.trigger_digest
    ]
    paths = {digest: guard.blobs.path(digest) for digest in wanted}
    replays = replays_from(evidence, {digest: path.read_bytes() for digest, path in paths.items()})
    return {
        "model": str(guard.blobs.path(parent)),
        "artifact": parent,
        "device": guard.settings.device,
        "cleanset": str(guard.blobs.path(scan.cleanset_digest or "")),
        "cleanset_name": scan.cleanset_name,
        "defense": step.rule.name,
        "parameters": dict(step.rule.params),
        "seed": SCAN_SEED,
        "seconds": guard.settings.scan_seconds,
        "battery": battery_secret.needed_by([step.rule.name], guard.settings.data_dir),
        "start": None
        if start is None
        else {"model": str(guard.blobs.path(start)), "digest": start, "after": step.after},
        "blind": scan.detail.blind,
        "accused": scan.detail.accused and str(guard.blobs.path(scan.detail.accused)),
        "replays": [
            {
                "target": r.target,
                "digest": r.digest,
                "path": str(paths[r.digest]),
                "natural": r.natural,
                "budget": r.budget,
            }
            for r in replays
        ],
    }


def _record(
    guard: Guard, held: Held, scan: ScanRow, tried: list[Attempt], step: Step, made: _Made
) -> None:
    """Store the candidate as an artifact with a scan of its own, which vets it like an upload."""
    child, now = uuid.uuid4().hex, guard.now()
    tried.append(replace(step.attempt(), child=child, digest=made.digest, facts=made.facts))
    with transaction(guard.engine) as session:
        held.check(session)
        artifacts.put(
            session,
            digest=made.digest,
            size=made.size,
            kind=ArtifactKind.PURIFIED,
            parent_digest=scan.canonical_digest,
            manifest=made.manifest,
            now=now,
        )
        scans.insert(
            session,
            scan_id=child,
            bucket=scan.bucket,
            key=scan.key,
            version_id=scan.version_id,
            name=scan.name,
            upload_digest=made.digest,
            submitted_by=scan.submitted_by,
            parent_scan_id=scan.id,
            detail=ScanNotes(purification=made.facts, trace=trace_of(scan)),
            now=now,
        )
        _note(session, guard, held, scan, tried)
        outbox.add(session, "inspect", {"scan_id": child}, now)


def _judged(guard: Guard, attempt: Attempt) -> Attempt:
    """The attempt with the verdict in force on its candidate, if there is one."""
    if attempt.child is None:
        return attempt
    return replace(attempt, verdict=_verdict_of(guard, attempt.child))


def _verdict_of(guard: Guard, scan_id: str) -> Verdict | None:
    with reading(guard.engine) as session:
        scan = scans.get(session, scan_id)
        row = ledger.get(session, scan.verdict_id) if scan.verdict_id else None
    if row is None and scan.state is ScanState.FAILED:
        return Verdict.INCONCLUSIVE
    return row.verdict if row is not None else None


def _end(guard: Guard, held: Held, scan: ScanRow, tried: list[Attempt], *, won: bool) -> None:
    """End the tournament: the parent keeps its verdict; a winning child is served in its place.

    Where no child won, the policy may have the parent judged again by its other rules; or the gate
    only warns, and the parent itself is let through.
    """
    own = _verdict_of(guard, scan.id) or Verdict.REJECTED
    if not won and own is Verdict.HELD and scan.detail.blind and guard.policy.repair.spares:
        with transaction(guard.engine) as session:
            held.check(session)
            spared = replace(scan, detail=replace(scan.detail, unrepaired=True))
            _note(session, guard, held, spared, tried, ScanState.DECIDING)
            outbox.add(session, "decide", {"scan_id": scan.id}, guard.now())
        return
    through = not won and lets_through(guard, scan, own)
    with transaction(guard.engine) as session:
        held.check(session)
        state = ScanState.PUBLISHING if through else ScanState.DONE
        _note(session, guard, held, scan, tried, state)
        _happened.repaired(guard, session, scan, tried, own)
        if through:
            outbox.add(session, "publish", {"scan_id": scan.id}, guard.now())


def _note(
    session: "Session",
    guard: Guard,
    held: Held,
    scan: ScanRow,
    tried: list[Attempt],
    state: ScanState = ScanState.PURIFYING,
) -> None:
    """Record what was tried, inside the caller's transaction."""
    scans.move(
        session,
        scan.id,
        state,
        guard.now(),
        lease=held.lease,
        detail=replace(scan.detail, candidates=tuple(tried)),
    )
