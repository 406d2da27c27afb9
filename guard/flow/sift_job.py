"""Sift the training set of a registered model by request, as a job.

It gives a report and nothing else: no evidence, so that no verdict depends on which set somebody
asked about. What counts for a verdict is the set that the upload itself names (`guard.flow.sift`).
"""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from guard.core.plain import from_plain, to_plain
from guard.core.progress import part
from guard.core.sift import SiftReport
from guard.core.training_jobs import JobState
from guard.flow._job_watch import Watch, cancelled
from guard.flow.context import SPARE
from guard.flow.retrain import READ, prepared
from guard.jobs.run import run_job
from guard.store import training_jobs
from guard.store.session import transaction

if TYPE_CHECKING:
    from guard.flow._lease import HeldJob
    from guard.flow.context import Guard
    from guard.store.training_rows import TrainingJobRow

SHOWN = 1000  # suspects in the result; `suspects_total` counts all


def run(guard: "Guard", held: "HeldJob", job: "TrainingJobRow") -> None:
    """Sift, and leave the report as the job's result.

    Raises:
        TrainingSetError, MethodFailed, Cancelled, LeaseLost: as `guard.flow.retrain.run`.
    """
    watch = Watch(guard, held, job)
    with guard.workspace() as folder:
        out = folder / "out"
        out.mkdir()
        request = prepared(guard, job, folder, progress=part(watch, 0, READ))
        request["known"] = []
        limits = guard.limits(max(1.0, watch.left) + SPARE)
        answer = run_job("sift", request, out, limits=limits, on_progress=part(watch, READ, 1))
        file = out / answer["evidence"]["blobs"]["report"]
        report = from_plain(SiftReport, json.loads(file.read_bytes()))
    shown = to_plain(replace(report, suspects=report.suspects[:SHOWN]))
    result = {**shown, "suspects_total": len(report.suspects)}
    with transaction(guard.engine) as session:
        now, spent = guard.now(), watch.spent
        asked = training_jobs.keep(session, held.lease, now, done=1.0, spent_seconds=spent)
        if asked is not None:
            raise cancelled(asked)
        training_jobs.end(session, held.lease, JobState.DONE, now, note="done", result=result)
