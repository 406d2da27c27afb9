"""Stage 1: inspect the upload and store its canonical file.

Exactly one format must claim the upload, and every rule of that format must hold.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from guard.core.errors import ArtifactRejected, MissingExtra
from guard.core.modality import modality_of
from guard.core.states import ScanState, Verdict
from guard.flow import _happened, _reuse
from guard.flow._handover import hand_over
from guard.flow._lease import Held
from guard.flow._modality import ruling
from guard.flow._observed import refused
from guard.flow.budget import budget_of
from guard.flow.context import Guard
from guard.flow.foreign_layers import FOREIGN_POLARIZER, made_here
from guard.jobs.run import run_job
from guard.store import artifacts, outbox, scans
from guard.store.rows import ArtifactKind, ScanRow
from guard.store.session import reading, transaction

STATES = frozenset({ScanState.QUEUED, ScanState.FETCHING, ScanState.INSPECTING})


def run(guard: Guard, held: Held) -> None:
    """Inspect the scan's upload, then go on to detection or hand over `unvettable`."""
    scan = held.scan()
    if scan.state not in STATES or scan.upload_digest is None:
        return
    with transaction(guard.engine) as session:
        held.check(session)
        scans.move(session, scan.id, ScanState.INSPECTING, guard.now(), lease=held.lease)
        if scan.parent_scan_id is None:
            _happened.mark(guard, session, scan.id)  # in place of a tag that an uploader made up
    upload = guard.blobs.path(scan.upload_digest)
    with guard.workspace() as out:
        request = {
            "path": str(upload),
            "name": "model.safetensors" if scan.parent_scan_id else Path(scan.key).name,
            "manifest": scan.manifest,
            "budget": asdict(budget_of(guard.settings)),
        }
        try:
            answer = run_job("inspect", request, out, limits=guard.limits(), on_progress=held.alive)
        except ArtifactRejected as error:
            refused("inspect", error)
            hand_over(guard, held, Verdict.UNVETTABLE, (error.sentence,))
            return
        except MissingExtra as error:
            hand_over(guard, held, Verdict.INCONCLUSIVE, (error.sentence,))
            return
        if _foreign_polarizer(guard, scan, answer):
            hand_over(guard, held, Verdict.UNVETTABLE, (FOREIGN_POLARIZER,))
            return
        with (out / answer["canonical"]).open("rb") as file:
            digest, size = guard.blobs.put(iter(lambda: file.read(1 << 20), b""))
    with transaction(guard.engine) as session:
        held.check(session)
        kind = ArtifactKind.PURIFIED if scan.parent_scan_id else ArtifactKind.CANONICAL
        parent = None if digest == scan.upload_digest else scan.upload_digest
        artifacts.put(
            session,
            digest=digest,
            size=size,
            kind=kind,
            parent_digest=parent,
            manifest=answer["manifest"],
            now=guard.now(),
        )
        own = ruling(guard, session, scan, modality_of(answer["manifest"]))
        rests_on = _reuse.candidate(own, session, scan, digest)
        state, task = (
            (ScanState.DETECTING, "detect") if rests_on is None else (ScanState.DECIDING, "decide")
        )
        scans.move(
            session,
            scan.id,
            state,
            guard.now(),
            lease=held.lease,
            canonical_digest=digest,
            detail=replace(
                scan.detail,
                reuses=rests_on,
                sketch=None if scan.parent_scan_id else answer["sketch"],
            ),
        )
        outbox.add(session, task, {"scan_id": scan.id}, guard.now())


def _foreign_polarizer(guard: Guard, scan: ScanRow, answer: Mapping[str, Any]) -> bool:
    """Whether an upload has a layer of a repair, and is none of the guard's own repairs."""
    if scan.parent_scan_id is not None or "polarizer" not in answer["manifest"].get("guard", {}):
        return False
    with reading(guard.engine) as session:
        return not made_here(session, answer["digest"])
