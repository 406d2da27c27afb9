"""Run one training job under a lease, to one of its ends; nothing of it is ever half there.

A job that is killed, or whose database or store is away, stays open: another worker goes on from
its files. Every other failure ends it with a sentence.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from guard.core.errors import (
    ArtifactRejected,
    Cancelled,
    GuardError,
    InputError,
    IntegrityMismatch,
    MethodFailed,
    Unavailable,
)
from guard.core.training_jobs import OPEN_STATES, JobKind, JobState
from guard.flow import retrain, sift_job
from guard.flow._job_files import forget
from guard.flow._job_watch import cancelled
from guard.flow._lease import HeldJob, hold_job
from guard.flow._observed import Seen, job_stage
from guard.store import training_jobs
from guard.store.session import transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.flow.context import Guard
    from guard.store.training_rows import TrainingJobRow

#: A job that takes its worker down this often, without keeping a new state between, is ended.
MAX_CRASHES = 3
STAGES: "dict[JobKind, Callable[[Guard, HeldJob, TrainingJobRow], None]]" = {
    JobKind.SIFT: sift_job.run,
    JobKind.RETRAIN: retrain.run,
}


def work(guard: "Guard", job_id: str) -> bool:
    """Do what is left of a job; False where another worker holds it, or it has ended."""
    with hold_job(guard, job_id) as held:
        if held is None:
            return False
        job = held.job()
        if job.state not in OPEN_STATES:
            return False
        with job_stage(guard, job) as seen:
            _run(guard, held, job, seen)
    return True


def _run(guard: "Guard", held: HeldJob, job: "TrainingJobRow", seen: Seen) -> None:
    if held.lease.attempts > MAX_CRASHES:
        sentence = f"The job took its worker down {MAX_CRASHES} times without getting further."
        failure = MethodFailed(sentence, code="job_crashed")
        seen.gave_up(failure)
        _end(guard, held, JobState.FAILED, failure)
        return
    try:
        if job.cancelled_by is not None:
            raise cancelled(job.cancelled_by)
        STAGES[job.kind](guard, held, job)
    except Cancelled as error:
        _end(guard, held, JobState.CANCELLED, error)
    except MethodFailed as error:
        if error.code == "job_crashed" and held.lease.attempts < MAX_CRASHES:
            raise  # the kernel may have been short of memory for a moment
        seen.gave_up(error)
        _end(guard, held, JobState.FAILED, error)
    except (InputError, ArtifactRejected, IntegrityMismatch) as error:
        seen.gave_up(error)
        _end(guard, held, JobState.FAILED, error)
    except Unavailable:
        with suppress(GuardError), transaction(guard.engine) as session:
            # The job did not take its worker down: a store was away.
            training_jobs.keep(session, held.lease, guard.now(), progressed=True)
        raise


def bury(guard: "Guard", job_id: str, sentence: str) -> None:
    """End a job that cannot be done, unless another worker holds it."""
    with hold_job(guard, job_id) as held:
        if held is not None and held.job().state in OPEN_STATES:
            _end(guard, held, JobState.FAILED, MethodFailed(sentence, code="job_failed"))


def _end(guard: "Guard", held: HeldJob, state: JobState, error: GuardError) -> None:
    files = held.job().files
    with transaction(guard.engine) as session:
        training_jobs.end(
            session,
            held.lease,
            state,
            guard.now(),
            error=error.sentence,
            code=error.code,
        )
    forget(guard, set(files.values()))
