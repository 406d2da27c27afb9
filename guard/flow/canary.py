"""The canary: a worker's detectors must prove that they work, at its start and once a day.

The proof is a run of `guard.vetting.canary_trial` in a job like that of any scan, on this host with
its device and libraries, and with the policy's own parameters. It is stored with the worker's name,
the methods' versions and the time. The detect stage starts no scan without a canary that passed
within the last day: the scan waits for a worker that has one, and is inconclusive if none comes.
"""

import platform
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from importlib.metadata import version

from guard.core.digests import json_digest
from guard.core.errors import MethodFailed
from guard.core.states import ScanState, Verdict
from guard.detectors import DETECTORS
from guard.flow._handover import hand_over
from guard.flow._lease import Held
from guard.flow.context import SPARE, Guard
from guard.jobs.run import run_job
from guard.store import alarms, canaries, outbox, scans
from guard.store.rows import CanaryRow
from guard.store.session import reading, transaction
from guard.vetting import canary_trial

HOLDS = timedelta(days=1)
# A failure is not final: a busy device may become free, a faulty library may be repaired.
TRIED_AGAIN = timedelta(minutes=5)
PATIENCE = timedelta(minutes=30)  # how long a scan waits for another worker or a person
_PAUSE_SECONDS = 20.0
ALARM = "canary_failed"

_one_at_a_time = threading.Lock()  # a stage that starts during the first run waits for it


def worker() -> str:
    """The name of this host in the database."""
    return platform.node() or "unknown"


def methods_digest(guard: Guard) -> str:
    """A digest of what a canary covers: methods, versions, parameters, kit, device and torch."""
    methods = {
        name: DETECTORS.get(name)(**dict(rule.params))
        for name, rule in guard.policy.detectors.items()
    }
    tried = {name: [method.version, method.parameters()] for name, method in methods.items()}
    return json_digest([tried, canary_trial.kit_digest(), guard.settings.device, version("torch")])


def current(
    guard: Guard, on_progress: Callable[[float, str], None] = lambda _done, _note: None
) -> CanaryRow:
    """This worker's canary for the policy in force: the stored one, or a new run."""
    with _one_at_a_time:
        methods = methods_digest(guard)
        with reading(guard.engine) as session:
            row = canaries.latest(session, worker(), methods)
        if row is not None and guard.now() - row.at < (HOLDS if row.passed else TRIED_AGAIN):
            return row
        return _run(guard, methods, on_progress)


def accepted(guard: Guard, held: Held) -> bool:
    """Whether this worker may run the detect stage.

    If not, the scan that is held waits for a worker that may, or ends inconclusive.
    """
    row = current(guard, held.alive)
    if row.passed:
        return True
    scan, now = held.scan(), guard.now()
    since = datetime.fromisoformat(scan.detail.canary_wait or now.isoformat())
    if now - since > PATIENCE:
        sentence = (
            f"No worker's detectors passed the canary; {worker()} last failed: {why(row)}. "
            "Repair it, then scan again."
        )
        hand_over(guard, held, Verdict.INCONCLUSIVE, (sentence,))
        return False
    with transaction(guard.engine) as session:
        held.check(session)
        scans.move(
            session,
            scan.id,
            ScanState.DETECTING,
            now,
            lease=held.lease,
            detail=replace(scan.detail, canary_wait=since.isoformat()),
        )
        outbox.add(session, "detect", {"scan_id": scan.id}, now, delay_seconds=_PAUSE_SECONDS)
    return False


def why(row: CanaryRow) -> str:
    """Why the methods that did not pass failed, one sentence each."""
    return "; ".join(
        f"{one['method']}: {one['sentence']}" for one in row.trials if not one["passed"]
    )


def _run(guard: Guard, methods: str, on_progress: Callable[[float, str], None]) -> CanaryRow:
    rules = {name: dict(rule.params) for name, rule in guard.policy.detectors.items()}
    seconds = guard.settings.scan_seconds
    request = {"detectors": rules, "device": guard.settings.device, "seconds": seconds}
    with guard.workspace() as out:
        try:
            answer = run_job(
                "canary",
                request,
                out,
                limits=guard.limits(seconds + SPARE),
                on_progress=on_progress,
            )
            trials = answer["trials"]
        except MethodFailed as error:
            # It crashed, or took too much time or memory: this worker cannot scan.
            trials = [{"method": "canary", "passed": False, "sentence": error.sentence}]
    passed = bool(trials) and all(one["passed"] for one in trials)
    with transaction(guard.engine) as session:
        row = canaries.add(
            session, worker=worker(), methods=methods, passed=passed, trials=trials, now=guard.now()
        )
        if passed:
            alarms.clear(session, ALARM, worker(), guard.now())
        else:
            alarms.raise_(
                session,
                ALARM,
                worker(),
                f"{worker()} starts no scan: {why(row)}.",
                guard.now(),
            )
    return row
