"""Retraining as a service: asked for, done by a worker, and its result vetted like an upload."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, update

from guard.core.errors import (
    CleanSetError,
    InputError,
    MethodFailed,
    TrainingSetError,
    Unavailable,
)
from guard.core.roles import Act, Role
from guard.core.sift import SiftVerdict
from guard.core.states import ScanState, Verdict
from guard.core.training_jobs import JobKind, JobState
from guard.flow import (
    _job_files,
    _lease,
    publish,
    retrain,
    run_job,
    run_stage,
    training_jobs,
    trainsets,
)
from guard.flow.principals import Forbidden, Unauthorised
from guard.flow.report import report_for
from guard.flow.rescue import rescue
from guard.jobs.run import run_job as in_a_child
from guard.store import acts, artifacts, evidence, scans, uploaders
from guard.store import training_jobs as job_rows
from guard.store.rows import ArtifactKind
from guard.store.session import reading, transaction
from guard.store.training_rows import TrainingJobRow
from guard.store.training_tables import TrainingJob
from tests import people
from tests.cli import models, sets
from tests.flow.jobs import Service


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def ended(service: Service, job: TrainingJobRow, state: JobState, code: str | None) -> str:
    """Do a job, which ends like this and leaves nothing behind; the sentence of its end."""
    scan, blobs = service.scan(service.scan_id), service.stored() - set(job.files.values())
    job = service.work(job)
    assert (job.state, job.code) == (state, code), job.error
    assert service.stored() == blobs
    assert (job.files, job.result, job.child_digest, job.child_scan_id) == ({}, None, None, None)
    assert service.scan(service.scan_id) == scan
    assert replace(service.work(job), lease_token=job.lease_token) == job
    return job.error or ""


def test_a_request_ends_in_an_artifact_that_is_vetted_and_not_published(service: Service) -> None:
    before = service.scan(service.scan_id)
    job = service.ask()
    assert (job.state, service.announced()[-1]) == (JobState.QUEUED, ("retrain", job.id))

    done = service.work(job)
    assert done.state is JobState.DONE, (done.code, done.error)
    assert (done.done, done.files, done.spent_seconds > 0) == (1.0, {}, True)
    assert done.result is not None
    assert done.result["parent"] == before.canonical_digest
    with reading(service.guard.engine) as session:
        made = artifacts.get(session, done.child_digest or "")
    assert (made.kind, made.parent_digest) == (ArtifactKind.RETRAINED, before.canonical_digest)

    child = done.child_scan_id or ""
    for stage in ("inspect", "detect", "decide"):
        assert run_stage.work(service.guard, stage, child)
    report = report_for(service.guard, child)
    assert report.verdict is Verdict.CLEARED, report.reasons
    assert report.facts.parent == before.canonical_digest
    assert report.retraining is not None
    assert report.retraining.on_proof[0].before.estimate > 0.8
    assert report.retraining.on_proof[0].after.high < 0.15
    scan = service.scan(child)
    assert scan.state is ScanState.DONE
    assert "guard publish" in (scan.detail.not_published or "")
    assert service.scan(service.scan_id) == before
    assert service.ask().id == job.id  # what is done already is not done again
    publish.request(service.guard, child, "ann")
    assert run_stage.work(service.guard, "publish", child)
    assert [one.digest for one in service.guard.publisher.state()] == [done.child_digest]
    assert service.scan(child).detail.not_published is None


def test_a_network_that_still_obeys_accused_images_is_not_cleared(service: Service) -> None:
    done = service.work(service.ask())
    child = done.child_scan_id or ""
    for stage in ("inspect", "detect"):
        assert run_stage.work(service.guard, stage, child)
    notes = service.scan(child).detail
    assert notes.retraining is not None
    (proof,) = notes.retraining.on_proof
    disobedient = replace(notes.retraining, on_proof=(replace(proof, after=proof.before),))
    with transaction(service.guard.engine) as session:
        scans.move(
            session,
            child,
            ScanState.DECIDING,
            service.clock,
            detail=replace(notes, retraining=disobedient),
        )
    assert run_stage.work(service.guard, "decide", child)

    report = report_for(service.guard, child)
    assert report.verdict is Verdict.REJECTED
    assert "kept for the proof still lead to class" in report.reasons[0]
    assert service.scan(child).state is ScanState.DONE  # and no tournament either


def test_the_same_thing_asked_for_twice_is_one_job_and_two_acts(service: Service) -> None:
    first, second = service.ask("ann"), service.ask("bob")
    other = service.ask(seed=1)

    assert first.id == second.id != other.id
    assert first.principal == "ann"
    assert [task for task, _ in service.announced()].count("retrain") == 2
    with reading(service.guard.engine) as session:
        rows = acts.of_kind(session, Act.RETRAIN)
    told = {row.principal: dict(row.facts) for row in rows if row.facts["job"] == first.id}
    assert set(told) == {"ann", "bob"}
    assert told["ann"]["training_set"] == first.wanted.training_set.digest
    with pytest.raises(InputError, match="wait or run"):
        service.ask(seed=2)


def test_who_cancels_a_job_that_nobody_began_has_it_end_at_once(service: Service) -> None:
    job = training_jobs.cancel(service.guard, "ann", service.ask().id)

    assert (job.state, job.cancelled_by) == (JobState.CANCELLED, "ann")
    assert service.work(job).state is JobState.CANCELLED
    with pytest.raises(InputError, match="is cancelled already"):
        training_jobs.cancel(service.guard, "ann", job.id)
    assert service.ask().id != job.id
    with reading(service.guard.engine) as session:
        (act,) = acts.of_kind(session, Act.CANCEL_JOB)
    assert (act.principal, act.facts["job"]) == ("ann", job.id)


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_running_job_shows_its_progress_and_ends_within_seconds_of_a_cancellation(
    service: Service,
) -> None:
    job = service.ask(parameters={"epochs": 2000})
    scan, blobs = service.scan(service.scan_id), service.stored() - set(job.files.values())
    worker = threading.Thread(target=service.work, args=(job,))
    worker.start()
    until(lambda: service.job(job).seconds_left is not None)
    shown = service.job(job)
    assert shown.state is JobState.RUNNING
    assert shown.note.startswith("training pass ")
    assert 0.1 < shown.done < 0.9
    assert len(shown.files) == 2
    training_jobs.cancel(service.guard, "ann", job.id)
    with pytest.raises(InputError, match="being cancelled"):
        service.ask(parameters={"epochs": 2000})
    worker.join(60)

    job = service.job(job)
    assert (job.state, job.code) == (JobState.CANCELLED, "job_cancelled")
    assert job.error == "ann cancelled the job; nothing came of it."
    assert service.stored() == blobs
    assert service.scan(service.scan_id) == scan


def test_a_job_ends_with_its_budget(service: Service) -> None:
    service.allow(budget_seconds=0.01)
    sentence = ended(service, service.ask(), JobState.FAILED, "job_over_budget")
    assert "used up its budget of 0.01 s" in sentence


def test_a_set_that_is_another_one_by_now_is_not_trained_on(
    service: Service, tmp_path: Path
) -> None:
    path = sets.training_set(tmp_path / "own.npz", poisoned=True)
    trainsets.add(service.guard, "bob", "own", str(path))
    job = service.ask(training_set="own")
    sets.training_set(path, poisoned=False)

    assert "changed since" in ended(service, job, JobState.FAILED, "trainset_other_digest")


def test_a_set_that_taught_another_model_is_not_trained_on(
    service: Service, tmp_path: Path
) -> None:
    images, labels = models.pictures(900, seed=2)
    names = np.array(models.MODEL.label_names)
    np.savez(tmp_path / "odd.npz", images=images, labels=np.roll(labels, 1), class_names=names)
    trainsets.add(service.guard, "bob", "odd", str(tmp_path / "odd.npz"))
    job = service.ask(training_set="odd")

    sentence = ended(service, job, JobState.FAILED, "sift_could_not_look")
    assert "Without a sift nothing is trained" in sentence


def test_a_method_that_does_not_know_a_parameter_says_so(service: Service) -> None:
    job = training_jobs.request(
        service.guard,
        "ann",
        training_jobs.Asked(
            kind=JobKind.RETRAIN,
            model="bad",
            training_set="stripes",
            method="sifted",
            parameters={"wishes": 3},
        ),
    )
    assert "wishes" in ended(service, job, JobState.FAILED, "bad_parameters")


def test_a_kept_state_that_is_gone_costs_time_and_no_bit(service: Service) -> None:
    first = service.work(service.ask())
    with transaction(service.guard.engine) as session:
        session.execute(delete(TrainingJob))
    job = service.ask()
    with transaction(service.guard.engine) as session:
        kept = {**job.files, f"{'0' * 64}.safetensors": "1" * 64}
        session.execute(update(TrainingJob).values(files=kept))
    # Without its sift the job would sift anew, which takes long: look only at what is restored.
    with _lease.hold_job(service.guard, job.id) as held:
        assert held is not None
        files = _job_files.JobFiles(service.guard, held, service.folder / "state")
        files.restore(service.job(job).files)
    assert list((service.folder / "state").iterdir()) == []

    with transaction(service.guard.engine) as session:
        session.execute(update(TrainingJob).values(files=dict(job.files)))
    assert service.work(job).child_digest == first.child_digest


def test_a_job_whose_workers_die_again_and_again_is_given_up(service: Service) -> None:
    job = service.ask()
    service.sent()
    for _ in range(3):
        with transaction(service.guard.engine) as session:
            assert job_rows.claim(session, job.id, now=service.clock, seconds=1)
        assert job.id not in rescue(service.guard)  # somebody holds it
        service.pass_seconds(100)
        assert job.id in rescue(service.guard)
        assert job.id not in rescue(service.guard)  # its message waits
        service.sent()

    sentence = ended(service, service.job(job), JobState.FAILED, "job_crashed")
    assert "3 times without getting further" in sentence


REFUSED: list[tuple[dict[str, Any], type[InputError], str]] = [
    ({"model": "nobody"}, InputError, "unknown_scan"),
    ({"model": "0" * 64}, InputError, "unknown_artifact"),
    ({"method": "d_st"}, InputError, "retrain_not_allowed"),
    ({"parameters": {str(number): 1 for number in range(60)}}, InputError, "bad_parameters"),
    ({"training_set": "never-added"}, TrainingSetError, "trainset_unknown"),
    ({"training_set": None}, TrainingSetError, "trainset_not_named"),
    ({"training_set": "s3://sets/a/"}, TrainingSetError, "trainset_not_pinned"),
    ({"digest": "abc"}, InputError, "not_a_digest"),
    ({"cleanset": "never-added"}, CleanSetError, "cleanset_unknown"),
]


def test_what_cannot_be_asked_for_is_refused(service: Service) -> None:
    for changes, error, code in REFUSED:
        with pytest.raises(error) as caught:
            service.ask(**changes)
        assert caught.value.code == code
    assert training_jobs.recent(service.guard) == []


def test_a_service_without_a_rule_retrains_nothing(service: Service) -> None:
    service.allow(methods=())
    with pytest.raises(InputError, match="it allows none"):
        service.ask()


def test_uploaders_ask_about_their_own_models_and_viewers_about_none(service: Service) -> None:
    guard = service.guard
    olga, una, vera = (
        people.who(guard, name, role)
        for name, role in (("olga", Role.OPERATOR), ("una", Role.UPLOADER), ("vera", Role.VIEWER))
    )
    with pytest.raises(Unauthorised):
        service.ask("ann")
    with pytest.raises(Forbidden, match="retrain needs"):
        service.ask(vera)
    with pytest.raises(Forbidden, match="owns no prefix"):
        service.ask(una)
    job = service.ask(olga)
    with pytest.raises(Forbidden):
        training_jobs.cancel(guard, una, job.id)
    with transaction(guard.engine) as session:
        uploaders.add_owner(
            session, bucket="models", prefix="models/bad/", principal="una", now=service.clock
        )
    assert service.ask(una).id == job.id
    assert training_jobs.cancel(guard, una, job.id).state is JobState.CANCELLED


def test_a_sift_by_request_is_a_report_and_no_evidence(service: Service) -> None:
    hasty = replace(service.guard.settings, scan_seconds=8.0)
    service.guard = replace(service.guard, settings=hasty)  # too little for the slower method
    job = service.ask(kind=JobKind.SIFT, method="", parameters={})
    assert service.announced()[-1] == ("sift", job.id)
    done = service.work(job)

    assert done.state is JobState.DONE, (done.code, done.error)
    assert done.result is not None
    assert done.result["verdict"] in {SiftVerdict.POISONED, SiftVerdict.REVIEW}
    assert done.result["suspects_total"] >= len(done.result["suspects"]) > 100
    assert done.result["training_set"]["uri"] == "stripes"
    with reading(service.guard.engine) as session:
        assert evidence.for_artifact(session, job.artifact_digest) == []


def test_a_store_that_is_away_has_a_job_wait_and_counts_no_crash(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = service.ask()
    away = Unavailable("S3 does not answer.")

    def fails(*_: object) -> None:
        raise away

    with monkeypatch.context() as patched:
        patched.setitem(run_job.STAGES, JobKind.RETRAIN, fails)
        for _ in range(run_job.MAX_CRASHES + 1):
            with pytest.raises(Unavailable):
                service.work(job)
    assert service.job(job).state is JobState.RUNNING
    assert service.work(job).state is JobState.DONE


def test_a_crash_is_tried_again_and_an_unforeseen_end_is_told(service: Service) -> None:
    job = service.ask()
    crash = MethodFailed("The retrain job was killed by signal 9.", code="job_crashed")

    def crashes(*_: object) -> None:
        raise crash

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(run_job.STAGES, JobKind.RETRAIN, crashes)
        for _ in range(run_job.MAX_CRASHES - 1):
            with pytest.raises(MethodFailed):
                service.work(job)
        assert service.work(job).code == "job_crashed"
    other = service.ask(seed=1)
    run_job.bury(service.guard, other.id, "KeyError: 'x'")
    run_job.bury(service.guard, other.id, "twice is harmless")
    assert (service.job(other).code, service.job(other).error) == ("job_failed", "KeyError: 'x'")


def test_a_cancellation_wins_against_a_result_that_is_not_committed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = service.ask()

    def cancelled_at_the_end(*args: Any, **more: Any) -> Any:
        answer = in_a_child(*args, **more)
        training_jobs.cancel(service.guard, "ann", job.id)
        return answer

    monkeypatch.setattr(retrain, "run_job", cancelled_at_the_end)
    blobs = service.stored() - set(job.files.values())
    made = service.work(job)
    assert (made.state, made.child_digest) == (JobState.CANCELLED, None)
    assert service.stored() == blobs
    monkeypatch.undo()
    again = service.ask()
    with transaction(service.guard.engine) as session:
        training_jobs_of = update(TrainingJob).where(TrainingJob.id == again.id)
        session.execute(training_jobs_of.values(cancelled_by="bob", state=JobState.RUNNING))
    assert service.work(again).error == "bob cancelled the job; nothing came of it."
