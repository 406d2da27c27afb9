"""Stage 4: the tournament.

Defenses in the policy's order; each candidate is a new artifact, vetted like an upload.

The parent scan waits in `purifying` while a candidate's own scan runs; the candidate's verdict
wakes it again. A held candidate waits for its reviewer on its own: the next defense may do without
one. Where the policy chains defenses, a candidate starts from an earlier one, but the parent of
both, and what both are compared with, is the upload.
"""

import uuid
from typing import Any

from guard.core.errors import Cancelled, MethodFailed
from guard.core.states import ScanState, Verdict
from guard.flow._lease import Held
from guard.flow.context import SPARE, Guard
from guard.flow.decide import case_of
from guard.flow.detect import SCAN_SEED
from guard.jobs.run import run_job
from guard.store import artifacts, ledger, outbox, scans
from guard.store.rows import ArtifactKind, ScanRow
from guard.store.session import reading, transaction
from guard.vetting.next_defense import Step, next_step
from guard.vetting.repair import replays_from
from guard.vetting.repair_probes import SECONDS


def run(guard: Guard, held: Held) -> None:
    """Make the next candidate, or end the tournament.

    Won, lost, or still waiting for a candidate's verdict.
    """
    scan = held.scan()
    if scan.state is not ScanState.PURIFYING or scan.canonical_digest is None:
        return
    candidates: list[dict[str, Any]] = list(scan.detail.get("candidates", []))
    verdicts = [_verdict_of(guard, item["child"]) for item in candidates if "child" in item]
    for item, verdict in zip(
        [item for item in candidates if "child" in item], verdicts, strict=True
    ):
        item["verdict"] = None if verdict is None else str(verdict)
    # Purified by the policy, or held and then cleared by a reviewer while others were tried.
    if any(verdict in (Verdict.PURIFIED, Verdict.CLEARED) for verdict in verdicts):
        _end(guard, held, scan, candidates)
        return
    if None in verdicts:
        return
    step = next_step(guard.policy.defenses, candidates)
    if step is None:
        _end(guard, held, scan, candidates)
        return
    try:
        _make_candidate(guard, held, scan, candidates, step)
    except Cancelled:
        raise
    except MethodFailed as error:
        candidates.append({**step.named(), "failed": error.sentence})
        with transaction(guard.engine) as session:
            held.check(session)
            scans.move(
                session,
                scan.id,
                ScanState.PURIFYING,
                guard.now(),
                lease=held.lease,
                detail={**scan.detail, "candidates": candidates},
            )
            outbox.add(session, "purify", {"scan_id": scan.id}, guard.now())


def _make_candidate(
    guard: Guard, held: Held, scan: ScanRow, candidates: list[dict[str, Any]], step: Step
) -> None:
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
    with guard.workspace() as out:
        request = {
            "model": str(guard.blobs.path(parent)),
            "artifact": parent,
            "device": guard.settings.device,
            "cleanset": str(guard.blobs.path(scan.cleanset_digest or "")),
            "cleanset_name": scan.cleanset_name,
            "defense": step.rule.name,
            "parameters": dict(step.rule.params),
            "seed": SCAN_SEED,
            "seconds": guard.settings.scan_seconds,
            "start": None
            if start is None
            else {"model": str(guard.blobs.path(start)), "digest": start, "after": step.after},
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
        answer = run_job(
            "purify",
            request,
            out,
            limits=guard.limits(guard.settings.scan_seconds + SECONDS + SPARE),
            on_progress=held.alive,
        )
        with (out / "model.safetensors").open("rb") as file:
            digest, size = guard.blobs.put(iter(lambda: file.read(1 << 20), b""))
    child = uuid.uuid4().hex
    candidates.append({**step.named(), "child": child, "digest": digest, "facts": answer["facts"]})
    with transaction(guard.engine) as session:
        held.check(session)
        now = guard.now()
        artifacts.put(
            session,
            digest=digest,
            size=size,
            kind=ArtifactKind.PURIFIED,
            parent_digest=parent,
            manifest=answer["manifest"],
            now=now,
        )
        scans.insert(
            session,
            scan_id=child,
            bucket=scan.bucket,
            key=scan.key,
            version_id=scan.version_id,
            name=scan.name,
            upload_digest=digest,
            submitted_by=scan.submitted_by,
            parent_scan_id=scan.id,
            detail={"purification": answer["facts"]},
            now=now,
        )
        scans.move(
            session,
            scan.id,
            ScanState.PURIFYING,
            now,
            lease=held.lease,
            detail={**scan.detail, "candidates": candidates},
        )
        outbox.add(session, "inspect", {"scan_id": child}, now)


def _verdict_of(guard: Guard, scan_id: str) -> Verdict | None:
    with reading(guard.engine) as session:
        scan = scans.get(session, scan_id)
        row = ledger.get(session, scan.verdict_id) if scan.verdict_id else None
    if row is None and scan.state is ScanState.FAILED:
        return Verdict.INCONCLUSIVE
    return row.verdict if row is not None else None


def _end(guard: Guard, held: Held, scan: ScanRow, candidates: list[dict[str, Any]]) -> None:
    """The parent keeps its own verdict, rejected; a winning child is served in its place."""
    with transaction(guard.engine) as session:
        held.check(session)
        scans.move(
            session,
            scan.id,
            ScanState.DONE,
            guard.now(),
            lease=held.lease,
            detail={**scan.detail, "candidates": candidates},
        )
