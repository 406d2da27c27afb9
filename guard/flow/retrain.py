"""Train a network anew on the sifted training set of a registered model, as a job.

The stages of a job: the set is copied and decoded, then sifted and trained on in a child process
without credentials, then the new network becomes an artifact with a scan of its own. That scan
vets it like any upload; the scan of the model that it was trained for is not touched.
"""

import uuid
from typing import TYPE_CHECKING, Any

from guard.core.errors import Cancelled
from guard.core.manifest import Manifest
from guard.core.notes import ScanNotes
from guard.core.plain import from_plain, to_plain
from guard.core.progress import part
from guard.core.retraining import RetrainingFacts
from guard.core.training_jobs import JobState
from guard.flow import trainsets
from guard.flow._job_files import JobFiles, forget
from guard.flow._job_watch import Watch, cancelled
from guard.flow.context import SPARE
from guard.jobs.run import run_job
from guard.store import artifacts, cleansets, outbox, scans, training_jobs
from guard.store.rows import ArtifactKind
from guard.store.session import reading, transaction
from guard.trainsets import for_model

if TYPE_CHECKING:
    from pathlib import Path

    from guard.core.progress import Progress
    from guard.flow._lease import HeldJob
    from guard.flow.context import Guard
    from guard.store.training_rows import TrainingJobRow

READ = 0.1  # of the progress
UNPUBLISHED = (
    "It was trained anew by request, which publishes nothing; an operator does: `guard publish`."
)


def run(guard: "Guard", held: "HeldJob", job: "TrainingJobRow") -> None:
    """Train, or go on; the job is done, and the new network has a scan.

    Raises:
        TrainingSetError: the set is not the one that was asked for, or cannot be read.
        MethodFailed: the sift could not look, nothing could be trained, or the budget is used up.
        Cancelled: a person ended it.
        LeaseLost: another worker took over.
    """
    with guard.workspace() as folder:
        out = folder / "out"
        out.mkdir()
        files = JobFiles(guard, held, out / "state")
        files.restore(job.files)
        watch = Watch(guard, held, job, files)
        request = prepared(guard, job, folder, progress=part(watch, 0, READ))
        request |= {"method": job.wanted.method, "parameters": dict(job.wanted.parameters)}
        answer = run_job(
            "retrain",
            request,
            out,
            limits=guard.limits(max(1.0, watch.left) + SPARE),
            on_progress=part(watch, READ, 1),
        )
        with (out / "model.safetensors").open("rb") as file:
            digest, size = guard.blobs.put(iter(lambda: file.read(1 << 20), b""))
    facts = from_plain(RetrainingFacts, answer["facts"])
    try:
        _record(guard, held, facts, digest, size, answer["manifest"], spent=watch.spent)
    except Cancelled:
        with reading(guard.engine) as session:
            there = artifacts.find(session, digest)
        if there is None:  # else an earlier job made the same network
            forget(guard, {digest})
        raise


def prepared(
    guard: "Guard", job: "TrainingJobRow", folder: "Path", *, progress: "Progress"
) -> dict[str, Any]:
    """Read the training set into `folder`; what a job is then asked, as plain values.

    Raises:
        TrainingSetError: it cannot be read, is not the one that was asked for, or is no set for
            this model.
    """
    wanted = job.wanted
    place = trainsets.resolve(guard, wanted.training_set)
    with reading(guard.engine) as session:
        cleanset = cleansets.get(session, wanted.cleanset)
        manifest = artifacts.get(session, wanted.artifact).manifest
    model = Manifest.from_dict(dict(manifest or {}))
    train = trainsets.read(guard, place, folder, shape=model.input_size, progress=progress)
    for_model(train, place, model)
    return {
        "model": str(guard.blobs.path(wanted.artifact)),
        "artifact": wanted.artifact,
        "cleanset": str(guard.blobs.path(wanted.cleanset)),
        "cleanset_name": cleanset.name,
        "set": str(folder / "set"),
        # Where a stored set lies on this machine is nobody else's business.
        "source": to_plain(wanted.training_set),
        "rule": dict(wanted.rule),
        "seed": wanted.seed,
        "seconds": guard.settings.scan_seconds,
        "device": guard.settings.device,
    }


def _record(
    guard: "Guard",
    held: "HeldJob",
    facts: RetrainingFacts,
    digest: str,
    size: int,
    manifest: dict[str, Any],
    *,
    spent: float,
) -> None:
    """Store the new network with a scan of its own, and end the job, in one commit."""
    child, now = uuid.uuid4().hex, guard.now()
    with transaction(guard.engine) as session:
        asked = training_jobs.keep(session, held.lease, now, done=1.0, spent_seconds=spent)
        if asked is not None:
            raise cancelled(asked)
        job = training_jobs.get(session, held.lease.scan_id)
        parent = scans.get(session, job.scan_id)
        artifacts.put(
            session,
            digest=digest,
            size=size,
            kind=ArtifactKind.RETRAINED,
            parent_digest=job.artifact_digest,
            manifest=manifest,
            now=now,
        )
        scans.insert(
            session,
            scan_id=child,
            bucket=parent.bucket,
            key=parent.key,
            version_id=parent.version_id,
            name=parent.name,
            upload_digest=digest,
            submitted_by=parent.submitted_by,
            parent_scan_id=parent.id,
            detail=ScanNotes(retraining=facts, not_published=UNPUBLISHED, trace=job.id),
            now=now,
        )
        training_jobs.end(
            session,
            held.lease,
            JobState.DONE,
            now,
            note="done",
            result=to_plain(facts),
            child_digest=digest,
            child_scan_id=child,
        )
        outbox.add(session, "inspect", {"scan_id": child}, now)
    forget(guard, set(job.files.values()))
