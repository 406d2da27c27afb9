"""One thin task per stage: it takes an id and calls guard.flow.

A task may arrive twice, late, or out of order.
"""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from celery import Task
from celery.exceptions import Ignore
from celery.signals import (
    task_failure,
    task_success,
    worker_process_init,
    worker_process_shutdown,
)

from guard import traces
from guard.bootstrap import open_guard
from guard.core.errors import InputError
from guard.core.tracing import Place, at
from guard.flow import (
    away,
    canary,
    dead_letter,
    exhibits,
    notify,
    orders,
    receive,
    rescan,
    rescue,
    run_job,
    run_stage,
    sweep,
    tags,
    tidy,
)
from guard.flow.context import Guard
from guard.flow.reconcile import reconcile_guard
from guard.store import outbox, scans, training_jobs, turns
from guard.store.session import reading, transaction
from workers.app import LONGEST_TRAINING, app, consumed
from workers.beat import PERIODIC
from workers.retries import after, is_away, pause

log = structlog.get_logger()
_guards: list[Guard] = []
#: What beat sends again by itself.
_PERIODIC_TASKS = frozenset(f"guard.{name}" for name in PERIODIC)


def the_guard() -> Guard:
    """This process's Guard, made after the fork.

    Connections and clients must not be shared with the parent.
    """
    if not _guards:
        _guards.append(open_guard())
    return _guards[0]


@worker_process_init.connect
def _prove_detectors(**_: Any) -> None:
    """Run the canary now, in the background, so that the first scan need not run it."""
    if "scan" in consumed:
        threading.Thread(
            target=_run_canary, args=(the_guard(),), name="canary", daemon=True
        ).start()


@worker_process_shutdown.connect
def _send_spans(**_: Any) -> None:
    """A process of the pool ends without what Python does at the end of others."""
    traces.flush()


def _run_canary(guard: Guard) -> None:
    try:
        row = canary.current(guard)
    except Exception as error:  # noqa: BLE001 - nothing is lost: the detect stage runs it again
        log.warning("canary_not_run", error=str(error), kind=type(error).__name__)
        return
    log.info("canary_known", passed=row.passed, why=canary.why(row), at=row.at.isoformat())


def _run_stage(name: str, scan_id: str, tries: int, since: str) -> None:
    guard = the_guard()
    try:
        worked = run_stage.work(guard, name, scan_id)
    except Exception as error:  # noqa: BLE001 - the table decides what each kind of error means
        _recover(guard, name, scan_id, error, tries=tries, since=since)
        return
    if not worked:
        log.info("stage_held_elsewhere", stage=name, scan_id=scan_id)


def _recover(
    guard: Guard, name: str, scan_id: str, error: Exception, *, tries: int = 0, since: str = ""
) -> None:
    """Put the stage back into the outbox, or end the scan, as `retries` decides.

    How often a service was away, and `since` when (ISO 8601), goes along with the message: a try
    moves the scan, so that its own times tell nothing. If the database is unavailable, this raises:
    the scan stays as it is, and `rescue` queues it again once the database is back.
    """
    with reading(guard.engine) as session:
        scan = scans.get(session, scan_id)
    now = guard.now()
    first = datetime.fromisoformat(since) if since else now
    waited = (now - first).total_seconds()
    answer = after(error, attempts=scan.attempts, outages=tries, waited=waited)
    kind = type(error).__name__
    with at(Place(trace_id=scan.detail.trace or scan.id, stage=name, scan_id=scan.id)):
        log.warning("stage_failed", error=str(error), kind=kind, then=answer.what)
    if answer.what == "later":
        again: dict[str, Any] = {"scan_id": scan_id}
        if is_away(error):
            again |= {"tries": tries + 1, "since": first.isoformat()}
        with transaction(guard.engine) as session:
            outbox.add(session, name, again, now, delay_seconds=answer.pause)
            if is_away(error):
                scans.forgive(session, scan_id)
    elif answer.what == "bury":
        run_stage.bury(guard, name, scan_id, f"{type(error).__name__}: {error}")


def _run_job(name: str, job_id: str, tries: int) -> None:
    guard = the_guard()
    try:
        worked = run_job.work(guard, job_id)
    except Exception as error:  # noqa: BLE001 - the table decides what each kind of error means
        _recover_job(guard, name, job_id, error, tries)
        return
    if not worked:
        log.info("job_held_elsewhere", stage=name, job_id=job_id)


def _recover_job(guard: Guard, name: str, job_id: str, error: Exception, tries: int = 0) -> None:
    """As `_recover`, for a job on a training set; a store that is away has it wait, not end."""
    with reading(guard.engine) as session:
        job = training_jobs.get(session, job_id)
    answer = after(error, attempts=job.attempts, outages=tries, waited=0.0)
    with at(Place(trace_id=job.id, stage=name, job_id=job.id)):
        log.warning("job_failed", error=str(error), kind=type(error).__name__, then=answer.what)
    if answer.what == "later":
        again: dict[str, Any] = {"job_id": job_id}
        if is_away(error):
            again["tries"] = tries + 1
        with transaction(guard.engine) as session:
            outbox.add(session, name, again, guard.now(), delay_seconds=answer.pause)
    elif answer.what == "bury":
        run_job.bury(guard, job_id, f"{type(error).__name__}: {error}")


@app.task(name="guard.inspect")
def inspect(scan_id: str, tries: int = 0, since: str = "") -> None:
    """Check formats, manifest and architecture, and write the canonical file."""
    _run_stage("inspect", scan_id, tries, since)


@app.task(name="guard.detect")
def detect(scan_id: str, tries: int = 0, since: str = "") -> None:
    """Run detectors and estimate attack success rates."""
    _run_stage("detect", scan_id, tries, since)


@app.task(name="guard.decide")
def decide(scan_id: str, tries: int = 0, since: str = "") -> None:
    """Apply the policy and sign the verdict."""
    _run_stage("decide", scan_id, tries, since)


@app.task(name="guard.purify")
def purify(scan_id: str, tries: int = 0, since: str = "") -> None:
    """Make the next candidate of the repair tournament."""
    _run_stage("purify", scan_id, tries, since)


@app.task(name="guard.publish")
def publish(scan_id: str, tries: int = 0, since: str = "") -> None:
    """Publish the approved model to serving."""
    _run_stage("publish", scan_id, tries, since)


@app.task(name="guard.sift", time_limit=LONGEST_TRAINING)
def sift(job_id: str, tries: int = 0) -> None:
    """Sift a training set that somebody asked about."""
    _run_job("sift", job_id, tries)


@app.task(name="guard.retrain", time_limit=LONGEST_TRAINING)
def retrain(job_id: str, tries: int = 0) -> None:
    """Train a network anew on a sifted training set."""
    _run_job("retrain", job_id, tries)


@app.task(name="guard.receive")
def receive_(nomination_id: str, tries: int = 0) -> None:
    """Pin, stream, hash and record a nominated object."""
    guard = the_guard()
    try:
        receive.receive_nomination(guard, nomination_id)
    except InputError as error:
        dead_letter.record(guard, "receive", {"nomination_id": nomination_id}, error.sentence)
    except Exception as error:  # noqa: BLE001 - S3 or the database is away; the nomination stays new and is tried again
        with at(Place(trace_id=nomination_id, stage="receive", nomination_id=nomination_id)):
            log.warning("receive_failed", error=str(error), kind=type(error).__name__)
        again = {"nomination_id": nomination_id, "tries": tries + 1}
        with transaction(guard.engine) as session:
            outbox.add(session, "receive", again, guard.now(), delay_seconds=pause(tries + 1))


def _periodic(name: str) -> Callable[[Callable[[Guard], None]], Task]:
    """Make a task of work that beat asks for, which never runs twice at once.

    A round that another one is still at is ignored, and counts neither as success nor as failure.
    """

    def task(work: Callable[[Guard], None]) -> Task:
        def alone() -> None:
            guard = the_guard()
            with turns.turn(guard.engine, name) as mine:
                if not mine:
                    log.info("periodic_work_still_runs", task=name)
                    raise Ignore
                work(guard)

        alone.__doc__ = work.__doc__
        made: Task = app.task(name=f"guard.{name}")(alone)
        return made

    return task


@_periodic("sweep")
def sweep_(guard: Guard) -> None:
    """Find uploads that no event reported."""
    sweep.sweep_guard(guard)


@_periodic("tidy")
def tidy_(guard: Guard) -> None:
    """Delete rows that nothing reads any more."""
    deleted = tidy.tidy(guard)
    if any(deleted.values()):
        log.info("tidied", **deleted)


@_periodic("rescue")
def rescue_(guard: Guard) -> None:
    """Queue scans again that nobody works on."""
    rescued = rescue.rescue(guard)
    if rescued:
        log.warning("scans_rescued", scan_ids=rescued)


@_periodic("renew")
def renew_(guard: Guard) -> None:
    """Open re-scans before verdicts end, and when what they rest on changed."""
    opened = rescan.renew(guard)
    if opened:
        log.info("rescans_opened", scan_ids=opened)


@_periodic("draw_waiting")
def draw_waiting(guard: Guard) -> None:
    """Make the images of what waits for a person, before somebody looks."""
    for scan_id in exhibits.due(guard):
        exhibits.draw(guard, scan_id)


@_periodic("reconcile")
def reconcile_(guard: Guard) -> None:
    """Remove from serving whatever may not be served."""
    for action in reconcile_guard(guard):
        log.warning("reconciled", action=str(action))


@_periodic("deliver")
def deliver_(guard: Guard) -> None:
    """Try deliveries again that are due, and make good what a lost message left behind."""
    notify.catch_up(guard)
    notify.send_due(guard)


@_periodic("tidy_notifications")
def tidy_notifications_(guard: Guard) -> None:
    """Delete old events and their log, and tag uploads whose verdict has ended."""
    notify.prune(guard)
    tags.mark_expired(guard)


@app.task(name="guard.order")
def order_(order_id: str) -> None:
    """Do what somebody asked for in the console."""
    row = orders.work(the_guard(), order_id)
    log.info("order_ended", order_id=order_id, act=str(row.act), state=str(row.state))


@app.task(name="guard.draw")
def draw_(scan_id: str) -> None:
    """Make the images of a scan's report for the console."""
    exhibits.draw(the_guard(), scan_id)


@app.task(name="guard.notify")
def notify_(event_id: str) -> None:
    """Hand an event on to its destinations, and try those that are due."""
    notify.fan_out(the_guard(), event_id)
    notify.send_due(the_guard())


@app.task(name="guard.tag")
def tag_(scan_id: str, tries: int = 0) -> None:
    """Tag an upload with how it stands."""
    tags.apply(the_guard(), scan_id, tries)


@task_failure.connect
def _dead_letter(
    sender: Any = None, args: Any = None, kwargs: Any = None, exception: Any = None, **_: Any
) -> None:
    """Record a message that no task could handle (wrong arguments, unknown scan)."""
    name = str(getattr(sender, "name", "unknown"))
    if name in _PERIODIC_TASKS and is_away(exception):
        away.failed(the_guard(), name, str(exception))
        return
    payload = {"args": str(args)[:500], "kwargs": str(kwargs)[:500]}
    dead_letter.record(the_guard(), name, payload, f"{type(exception).__name__}: {exception}")


@task_success.connect
def _back(sender: Any = None, **_: Any) -> None:
    """A service that was away is back."""
    if (name := str(getattr(sender, "name", "unknown"))) in _PERIODIC_TASKS:
        away.done(the_guard(), name)
