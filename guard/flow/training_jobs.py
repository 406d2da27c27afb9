"""Ask for a sift or a retraining of a registered model, follow it, and cancel it.

Each request and each cancellation is an act of its principal, also where it finds a job that is
there already. Nothing runs here: the queue `train` does (`guard.flow.run_job`).
"""

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from guard import __version__
from guard.core.digests import is_digest, json_digest
from guard.core.errors import CleanSetError, InputError, TrainingSetError
from guard.core.evidence import CleanSetFacts
from guard.core.manifest import Manifest, is_bucket_uri
from guard.core.modality import HOLDS, Modality
from guard.core.plain import to_plain
from guard.core.roles import Act, Role
from guard.core.training_jobs import OPEN_STATES, JobKind, JobOrder
from guard.core.trainset import TrainingSetSource
from guard.flow._acts import note
from guard.flow._modality import for_scan_in
from guard.flow._seal import settle
from guard.flow.context import SPARE
from guard.flow.principals import Forbidden, permit
from guard.flow.readers import scope_of
from guard.store import artifacts, cleansets, outbox, scans, training_jobs, trainsets, uploaders
from guard.store.scope import EVERYTHING, Scope
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.core.evidence import AnyCleanSet
    from guard.flow.context import Guard
    from guard.flow.principals import Principal
    from guard.store.rows import ScanRow
    from guard.store.training_rows import TrainingJobRow

_ACTS = {JobKind.SIFT: Act.SIFT, JobKind.RETRAIN: Act.RETRAIN}
MAX_PARAMETERS = 50


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What somebody asks for.

    Attributes:
        model: an artifact's digest, the name of uploads (the newest counts), or a scan's id.
        training_set: a stored name, or `s3://bucket/prefix/` with `digest`; None for the set that
            the model's `config.json` names.
        digest: what the set must have; needed where no stored set has one.
        cleanset: a stored name; None for the one that the model is vetted with.
        method: a retrainer of the policy; empty for a sift.
    """

    kind: JobKind
    model: str
    training_set: str | None = None
    digest: str | None = None
    cleanset: str | None = None
    method: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


def request(guard: "Guard", who: "Principal | str", asked: Asked) -> "TrainingJobRow":
    """Have a job done; the same thing asked for twice is one job.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`, or the model is another's.
        InputError: there is no such model, the policy does not allow it, or too many jobs are open.
        TrainingSetError: no set is named, it is not known, or nothing says what must be in it.
        CleanSetError: there is no clean set for the model.
    """
    with reading(guard.engine) as session:
        permit(guard, session, who, _ACTS[asked.kind])
        scan = model_of(session, asked.model, scope_of(guard, session, who))
        guard = for_scan_in(guard, session, scan)
    budget = _budget(guard, asked)
    wanted = JobOrder(
        kind=asked.kind,
        artifact=scan.canonical_digest or "",
        training_set=_pinned(guard, scan, asked),
        cleanset=_cleanset(guard, scan, asked.cleanset).digest,
        rule=asdict(guard.policy.training_set),
        method=asked.method,
        parameters=dict(asked.parameters),
        seed=asked.seed,
        guard=__version__,
    )
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, _ACTS[asked.kind])
        _own(session, who, scan)
        job = _open(guard, session, scan, wanted, budget, who.name)
        detail = f"{asked.method or 'sift'} on {wanted.training_set.uri}"
        facts = {"job": job.id, "training_set": wanted.training_set.digest or ""}
        note(guard, session, who, _ACTS[asked.kind], wanted.artifact, detail, facts)
    settle(guard)
    return job


def cancel(guard: "Guard", who: "Principal | str", job_id: str) -> "TrainingJobRow":
    """Have a job end without a result; its worker, if it has one, sees it within seconds.

    Raises:
        Unauthorised, Forbidden: as `request`.
        InputError: there is no such job, or it has ended.
    """
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.CANCEL_JOB)
        job = training_jobs.get(session, job_id, scope_of(guard, session, who))
        _own(session, who, scans.get(session, job.scan_id))
        if job.state not in OPEN_STATES:
            raise InputError(f"Job {job.id} is {job.state} already.", code="training_job_ended")
        job = training_jobs.cancel(session, job.id, who.name, guard.now())
        note(
            guard, session, who, Act.CANCEL_JOB, job.artifact_digest, str(job.kind), {"job": job.id}
        )
    settle(guard)
    return job


def find(guard: "Guard", job_id: str, scope: Scope = EVERYTHING) -> "TrainingJobRow":
    """A job by its id or an unambiguous start of it.

    Raises:
        InputError: no such job, or several.
    """
    with reading(guard.engine) as session:
        return training_jobs.get(session, job_id, scope)


def recent(
    guard: "Guard",
    limit: int = 50,
    *,
    only_open: bool = False,
    kind: JobKind | None = None,
    scope: Scope = EVERYTHING,
) -> list["TrainingJobRow"]:
    """The newest jobs first, of one kind if given."""
    with reading(guard.engine) as session:
        return training_jobs.list_recent(
            session, limit, only_open=only_open, kind=kind, scope=scope
        )


def model_of(session: "Session", wanted: str, scope: Scope = EVERYTHING) -> "ScanRow":
    """The scan of a model: by an artifact's digest, a name of uploads, or a scan's id.

    Raises:
        InputError: nothing of that kind is known, or it was never inspected.
    """
    found = scans.newest_upload(session, wanted, scope)
    if found is None and is_digest(wanted):
        found = next(iter(scans.for_digest(session, wanted, scope)), None)
        if found is None:
            raise InputError(f"The guard knows no artifact {wanted[:12]}.", code="unknown_artifact")
    if found is None:
        found = scans.get(session, wanted, scope)
    if found.detail.rescan is not None:
        found = scans.get(session, found.detail.rescan.of)
    if found.canonical_digest is None:
        raise InputError(
            f"Scan {found.id} has no model that the guard could read; `guard status` says why.",
            code="model_not_read",
        )
    return found


def _open(
    guard: "Guard", session: "Session", scan: "ScanRow", wanted: JobOrder, budget: float, by: str
) -> "TrainingJobRow":
    """The job for `wanted`: one that is open or done, or a new one with its message."""
    request_digest, new = json_digest(to_plain(wanted)), uuid.uuid4().hex
    there = training_jobs.same(session, request_digest)
    if there is None:
        if training_jobs.count_open(session) >= guard.policy.retrain.max_open:
            raise InputError(
                f"{guard.policy.retrain.max_open} jobs on training sets wait or run; ask again "
                "when one has ended.",
                code="too_many_training_jobs",
            )
        inserted = training_jobs.insert(
            session,
            job_id=new,
            request=request_digest,
            wanted=wanted,
            scan_id=scan.id,
            principal=by,
            budget_seconds=budget,
            now=guard.now(),
        )
        if inserted:
            outbox.add(session, str(wanted.kind), {"job_id": new}, guard.now())
            return training_jobs.get(session, new)
        there = training_jobs.same(session, request_digest)  # somebody asked at the same moment
    if there is None or (there.cancelled_by is not None and there.state in OPEN_STATES):
        raise InputError(
            "The same job is being cancelled; ask again in a moment.", code="training_job_ending"
        )
    return there


def _budget(guard: "Guard", asked: Asked) -> float:
    """How long the job may work, in seconds.

    Raises:
        InputError: the policy does not have the service do this.
    """
    if asked.kind is JobKind.SIFT:
        return guard.settings.scan_seconds + SPARE
    rule = guard.policy.retrain
    if asked.method not in rule.methods:
        listed = f"it allows {', '.join(rule.methods)}" if rule.methods else "it allows none"
        raise InputError(
            f"The policy does not let the service retrain with {asked.method!r:.50}; {listed} "
            "(methods in [retrain]).",
            code="retrain_not_allowed",
        )
    if len(asked.parameters) > MAX_PARAMETERS:
        raise InputError("No retrainer has that many parameters.", code="bad_parameters")
    return rule.budget_seconds


def _pinned(guard: "Guard", scan: "ScanRow", asked: Asked) -> TrainingSetSource:
    """The training set with the digest that it must have."""
    if asked.training_set is not None:
        named = TrainingSetSource(uri=asked.training_set, digest=asked.digest)
    else:
        with reading(guard.engine) as session:
            stored = artifacts.get(session, scan.canonical_digest or "").manifest
        found = None if stored is None else Manifest.from_dict(dict(stored)).training_set
        if found is None:
            raise TrainingSetError(
                "The model's config.json names no training set; name one.",
                code="trainset_not_named",
            )
        named = replace(found, digest=asked.digest or found.digest)
    if named.digest is not None and not is_digest(named.digest):
        raise InputError("A training set's digest is a SHA-256.", code="not_a_digest")
    if not is_bucket_uri(named.uri):
        with reading(guard.engine) as session:
            row = trainsets.get_by_name(session, named.uri)
        if row is None:
            raise TrainingSetError(
                f"No training set is called {named.uri!r:.100}; `guard trainset add` stores one.",
                code="trainset_unknown",
            )
        named = replace(
            named,
            digest=named.digest or row.facts.origin or row.facts.digest,
            class_names=named.class_names or row.class_names,
        )
    if named.digest is None:
        raise TrainingSetError(
            f"Nothing says what must lie at {named.uri:.200}; store the set with `guard trainset "
            "add`, or give its digest.",
            code="trainset_not_pinned",
        )
    return named


def _cleanset(guard: "Guard", scan: "ScanRow", name: str | None) -> CleanSetFacts:
    """The clean set of that name, or the one that the model was or would be vetted with."""
    if name is None and scan.cleanset_digest is None:
        # Imported here, since the API asks too, and starts without NumPy.
        from guard.flow.detect import wanted_cleanset

        return _of_images(wanted_cleanset(guard, scan))
    with reading(guard.engine) as session:
        if name is None:
            return _of_images(cleansets.get(session, scan.cleanset_digest or ""))
        found = cleansets.get_by_name(session, name)
    if found is None:
        raise CleanSetError(
            f"No clean set is called {name!r:.100}; `guard cleanset add` stores one.",
            code="cleanset_unknown",
        )
    return _of_images(found)


def _of_images(facts: "AnyCleanSet") -> CleanSetFacts:
    if isinstance(facts, CleanSetFacts):
        return facts
    raise CleanSetError(
        f"Clean set {facts.name!r:.100} holds {HOLDS[facts.modality]}; training sets are sifted, "
        f"and networks trained, with {HOLDS[Modality.IMAGES]}.",
        code="cleanset_wrong_kind",
    )


def _own(session: "Session", who: "Principal", scan: "ScanRow") -> None:
    """Whether the model is this principal's business: operators any, uploaders their own.

    Raises:
        Forbidden: an uploader owns no prefix of its key.
    """
    if who.role is not Role.UPLOADER:
        return
    if who.name not in uploaders.may_upload(session, scan.bucket, scan.key):
        raise Forbidden(
            f"{who.name} owns no prefix of s3://{scan.bucket}/{scan.key}; ask an operator."
        )
