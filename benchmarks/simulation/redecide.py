"""How long it takes to decide anew about many stored verdicts, by a policy that changed.

The registry is generated: each artifact with its scan, four pieces of evidence, a signed verdict
and an active publication. First the whole of it is decided by another policy, as `guard policy
simulate` does. Then beat and workers renew the real verdicts of a part of it, and what they run is
counted: under a policy that only judges otherwise no detector runs, under one that asks for one
detector more each artifact is scanned once.
"""

import time
import uuid
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from benchmarks.simulation import jobs
from benchmarks.simulation.audit import work
from benchmarks.simulation.steps import Schedule
from benchmarks.simulation.world import BUCKET, World
from guard.core.evidence import AnyCleanSet, Evidence, Outcome
from guard.core.notes import ScanNotes
from guard.core.states import ScanState
from guard.detectors import DETECTORS
from guard.flow import rescan, simulate
from guard.flow._seal import seal
from guard.flow._verdict import Terms, write
from guard.policy import DetectorRule
from guard.store import artifacts, cleansets, evidence, publications, scans
from guard.store.rows import ArtifactKind
from guard.store.session import reading, transaction
from guard.vetting import examine
from guard.vetting.case import judge, make_case

HOURS = 3600.0
METHODS = (jobs.DETECTOR, "margin", "weight_statistics")


def measure(world: World, verdicts: int, renewed: int) -> dict[str, Any]:
    """Seconds and counts for `verdicts` that are stored and the `renewed` that beat decides."""
    world.reset(0)
    policy = replace(
        world.policies[0],
        detectors={name: DetectorRule(required=name == jobs.DETECTOR) for name in METHODS},
    )
    world.obey(policy)
    started = time.monotonic()
    generate(world, verdicts)
    made = time.monotonic() - started
    stricter = replace(policy, asr_limit=0.05)
    started = time.monotonic()
    found = simulate.simulate(world.guard, stricter)
    simulated = time.monotonic() - started
    assert found.artifacts == verdicts, found.counts
    world.pass_time(7 * HOURS)
    world.obey(stricter)
    judged = _renew(world, renewed)
    more = {**policy.detectors, "mesa": DetectorRule(required=False)}
    world.pass_time(7 * HOURS)
    world.obey(replace(stricter, detectors=more))
    wider = _renew(world, renewed)
    return {
        "verdicts": verdicts,
        "generated_s": round(made, 1),
        "simulated_s": round(simulated, 2),
        "simulated": {f"{a} to {b}": n for (a, b), n in found.counts.items()},
        "other_rule": judged,
        "one_more_detector": wider,
    }


def generate(world: World, count: int) -> None:
    """A registry of `count` served artifacts, each with bytes of its own."""
    guard = world.guard
    with reading(guard.engine) as session:
        facts = cleansets.list_all(session)[0]
    smoke = guard.blobs.put_bytes(jobs.SMOKE)
    weights = next(data for _, data in filter(None, map(_whole, world.models.inspected.values())))
    for start in range(0, count, 500):
        with transaction(guard.engine) as session:
            for number in range(start, min(count, start + 500)):
                data = weights[:-8] + number.to_bytes(8, "little")
                _one(world, session, f"model-{number:06d}", data, facts, smoke)
    seal(guard)


def _whole(made: Any) -> Any:
    return made if isinstance(made, tuple) else None


def _one(
    world: World, session: Session, name: str, data: bytes, facts: AnyCleanSet, smoke: str
) -> None:
    guard, now, scan_id = world.guard, world.clock, uuid.uuid4().hex
    digest, manifest = guard.blobs.put_bytes(data), jobs.MANIFEST.to_dict()
    artifacts.put(
        session,
        digest=digest,
        size=len(data),
        kind=ArtifactKind.CANONICAL,
        manifest=manifest,
        now=now,
    )
    scans.insert(
        session,
        scan_id=scan_id,
        bucket=BUCKET,
        key=f"models/{name}/model.safetensors",
        version_id=scan_id,
        name=name,
        now=now,
        upload_digest=digest,
        detail=ScanNotes(smoke=smoke, canary=world.kit * 64),
        cleanset_name=facts.name,
        cleanset_digest=facts.digest,
    )
    found = [_nothing(digest, method, facts.digest) for method in METHODS]
    found.append(examine.accuracy_evidence(digest, facts.digest, jobs.ACCURACY, 0))
    for item in found:
        evidence.add(session, item, now)
    for state in (ScanState.INSPECTING, ScanState.DETECTING, ScanState.DECIDING):
        scan = scans.move(session, scan_id, state, now, canonical_digest=digest)
    case = make_case(
        guard.policy, digest, facts, tuple(found), None, architecture=str(manifest["architecture"])
    )
    write(guard, session, scan, digest, judge(guard.policy, case).facts, Terms())
    publications.add(
        session,
        publication_id=uuid.uuid4().hex,
        digest=digest,
        name=name,
        version="1.0",
        publisher="folder",
        archive_digest=digest,
        receipt={},
        envelope={},
        now=now,
    )


def _nothing(digest: str, method: str, cleanset: str) -> Evidence:
    """What a detector leaves that found nothing."""
    detector = DETECTORS.get(method)()
    return Evidence(
        artifact=digest,
        method=method,
        version=detector.version,
        parameters=detector.parameters(),
        cleanset=cleanset,
        seed=0,
        outcome=Outcome.NOTHING,
        families=tuple(sorted(detector.families)),
    )


def _renew(world: World, count: int) -> dict[str, Any]:
    """Let beat open `count` re-scans, and workers end them."""
    world.settle(rescan_limit=count)
    detected = world.jobs.detected
    started = time.monotonic()
    opened = rescan.renew(world.guard)
    looked = time.monotonic() - started
    run = Schedule(world=world, rng=world.rng, keys=())
    started = time.monotonic()
    work(run)
    worked = time.monotonic() - started
    with reading(world.guard.engine) as session:
        done = [scans.get(session, scan_id) for scan_id in opened]
    assert all(scan.state is ScanState.DONE for scan in done), {scan.error for scan in done}
    return {
        "renewed": len(opened),
        "detector_jobs": world.jobs.detected - detected,
        "beat_s": round(looked, 2),
        "decided_and_published_s": round(worked, 2),
        "each_ms": round(1000 * worked / max(1, len(opened)), 1),
    }
