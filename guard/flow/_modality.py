"""The guard with the policy in force that decides about one artifact.

That is the one that the artifact's project names, where it names one for models of this modality,
and else the installation's. What decides is where the upload lies, never what it says of itself.
"""

from typing import TYPE_CHECKING

from guard.core.modality import Modality, modality_of
from guard.core.states import GateMode
from guard.flow.context import Guard
from guard.store import artifacts, projects, scans
from guard.store.session import reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.policy import Policy
    from guard.store.rows import ScanRow


def ruling(guard: Guard, session: "Session", scan: "ScanRow", modality: Modality) -> Guard:
    """`guard` as it decides about a model of a modality that a scan is about."""
    own = guard.of(modality)
    project = projects.of_key(session, scan.bucket, scan.key)
    if project is None or project.policy is None:
        return own
    return own.under(project.name, project.policy)


def for_scan_in(
    guard: Guard, session: "Session", scan: "ScanRow", subject: str | None = None
) -> Guard:
    """`guard` as it decides about a scan's artifact, or about `subject` in its place.

    Before anything was inspected it is taken for a model of images.
    """
    digest = subject or scan.canonical_digest
    row = artifacts.find(session, digest) if digest else None
    manifest = None if row is None else row.manifest
    modality = Modality.IMAGES if manifest is None else modality_of(manifest)
    return ruling(guard, session, scan, modality)


def for_artifact(guard: Guard, session: "Session", digest: str) -> Guard:
    """`guard` as it decides about the newest scan of an artifact."""
    found = next(iter(scans.for_digest(session, digest)), None)
    return guard if found is None else for_scan_in(guard, session, found, digest)


def for_scan(guard: Guard, scan: "ScanRow") -> Guard:
    """`guard` as it decides about a scan's artifact."""
    with reading(guard.engine) as session:
        return for_scan_in(guard, session, scan)


def mode_of(guard: Guard, session: "Session", scan: "ScanRow | None") -> GateMode:
    """What the gate does with a scan's artifact; without one, by the policy in force."""
    own = guard if scan is None else for_scan_in(guard, session, scan)
    return own.policy.gate_mode


def in_force(guard: Guard, session: "Session") -> "tuple[Policy, ...]":
    """Every policy that decides about something: the installation's, then those of projects."""
    found = {policy.digest: policy for policy in guard.policies}
    for project in projects.with_policy(session):
        for policy in guard.policies:
            own = guard.of(policy.modality).under(project.name, project.policy or "")
            if not own.lacking:
                found[own.policy.digest] = own.policy
    return tuple(found.values())
