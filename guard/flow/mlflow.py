"""Tell an MLflow registry what the gate passes: tags for readers, and one alias that serves.

A version is known by where its files lie: every upload under its source must have a verdict that an
enforcing gate passes now. Tags of the registry are never read, since whoever may write there could
claim another model's verdict.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guard.attest import gate
from guard.core.errors import IntegrityMismatch, NotServable
from guard.core.roles import Act
from guard.core.states import SERVABLE_VERDICTS
from guard.flow import _newest
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow._standing import standing
from guard.flow.context import Guard
from guard.flow.principals import Principal, permit
from guard.registries.mlflow import Mlflow, ModelVersion
from guard.store import scans
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.store.rows import ScanRow

ALIAS = "serving"
UNKNOWN, PENDING, NOT_SERVABLE = "unknown", "pending", "not_servable"
_S3 = "s3://"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the guard holds of one version; `why` is empty where the gate passes it."""

    version: int
    verdict: str
    why: str
    tags: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Synced:
    """One registered model: its versions, and where the alias was and is."""

    name: str
    versions: tuple[Judgement, ...]
    before: int | None
    after: int | None

    @property
    def refused(self) -> str:
        """Why the version that the alias pointed to may not serve; empty where it may."""
        return next((one.why for one in self.versions if one.version == self.before), "")


def synchronise(
    guard: Guard,
    by: Principal | str,
    *,
    alias: str = ALIAS,
    names: Collection[str] = (),
    newest: bool = False,
    dry_run: bool = False,
) -> list[Synced]:
    """Set tags and the alias of registered models by the verdicts in force.

    An alias stays where it is as long as the gate passes that version. Otherwise it goes to the
    newest version that passes, and where there is none it is deleted.

    Args:
        names: the models; all where none is named.
        newest: move the alias on to the newest version that passes.
        dry_run: change nothing, and leave no act.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: no MLflow server is set.
        IntegrityMismatch: the ledger was changed.
        Unavailable: MLflow does not answer, or refuses.
    """
    with reading(guard.engine) as session:
        permit(guard, session, by, Act.SYNC_MLFLOW)
    settings = guard.settings
    registry = Mlflow(settings.mlflow_url, settings.mlflow_token)
    try:
        revoked = standing(guard, whole=True).check().revoked
        found = [
            _judged(guard, registry, name, alias, revoked, newest=newest)
            for name in (names or registry.names())
        ]
        if not dry_run:
            for item in found:
                _apply(guard, registry, item, alias, by)
            settle(guard)
    finally:
        registry.close()
    return found


def _judged(
    guard: Guard,
    registry: Mlflow,
    name: str,
    alias: str,
    revoked: frozenset[str],
    *,
    newest: bool,
) -> Synced:
    with reading(guard.engine) as session:
        versions = tuple(_judge(guard, session, one, revoked) for one in registry.versions(name))
    before = registry.aliased(name, alias)
    passing = [one.version for one in versions if not one.why]
    keeps = before in passing and not newest
    return Synced(
        name=name,
        versions=versions,
        before=before,
        after=before if keeps else max(passing, default=None),
    )


def _judge(
    guard: Guard, session: "Session", version: ModelVersion, revoked: frozenset[str]
) -> Judgement:
    """The worst of what is known about the uploads under a version's source."""
    place = _place(version.source, guard.settings.mlflow_sources)
    uploads = [] if place is None else scans.newest_under(session, *place)
    judged = [_of_upload(guard, session, version.version, one, revoked) for one in uploads]
    if not judged:
        why = f"the guard knows no upload under {version.source or 'an empty source'}"
        return _plain(version.version, UNKNOWN, why)
    return next((one for one in judged if one.why), judged[0])


def _of_upload(
    guard: Guard, session: "Session", version: int, scan: "ScanRow", revoked: frozenset[str]
) -> Judgement:
    digest = scan.canonical_digest
    # A scan that has not ended has no verdict, though older bytes of the same key may have one.
    decided = digest is not None and scan.verdict_id is not None
    row = _newest.verdict(session, digest or "", guard.trusted, scan) if decided else None
    if row is None or digest is None:
        return _plain(version, PENDING, f"scan {scan.id[:12]} of {scan.key} has no verdict")
    tags = {
        "guard.verdict": str(row.verdict),
        "guard.verdict_id": row.id,
        "guard.sha256": digest,
        "guard.policy": row.policy_digest,
        "guard.expires": row.expires_at.isoformat(),
    }
    try:
        gate.servable(
            row.envelope,
            guard.trusted,
            digest=digest,
            now=guard.now(),
            revoked=revoked,
            ledger_row=row,
        )
    except (NotServable, IntegrityMismatch) as error:
        if row.verdict in SERVABLE_VERDICTS:  # expired, withdrawn, or no more as it was signed
            tags["guard.verdict"] = NOT_SERVABLE
        return Judgement(
            version=version, verdict=tags["guard.verdict"], why=error.sentence, tags=tags
        )
    return Judgement(version=version, verdict=str(row.verdict), why="", tags=tags)


def _plain(version: int, verdict: str, why: str) -> Judgement:
    return Judgement(version=version, verdict=verdict, why=why, tags={"guard.verdict": verdict})


def _place(source: str, mapped: Collection[str]) -> tuple[str, str] | None:
    """Bucket and prefix of a source; None where it is no place in S3."""
    for pair in mapped:
        start, _, target = pair.rpartition("=")
        if start and source.startswith(start):
            source = f"{target.rstrip('/')}/{source.removeprefix(start).lstrip('/')}"
            break
    if not source.startswith(_S3):
        return None
    bucket, _, prefix = source.removeprefix(_S3).partition("/")
    prefix = prefix.strip("/")
    return (bucket, prefix) if bucket and prefix and ".." not in prefix.split("/") else None


def _apply(guard: Guard, registry: Mlflow, item: Synced, alias: str, by: Principal | str) -> None:
    # The alias first: what may not serve is taken out before anything else can fail.
    if item.before != item.after:
        with transaction(guard.engine) as session:
            who = permit(guard, session, by, Act.SYNC_MLFLOW)
            moved = f"{alias}: {item.before or 'nothing'} -> {item.after or 'nothing'}"
            facts = {"before": str(item.before or ""), "after": str(item.after or "")}
            note(guard, session, who, Act.SYNC_MLFLOW, item.name, moved, facts)
        if item.after is None:
            registry.unpoint(item.name, alias)
        else:
            registry.point(item.name, alias, item.after)
    for version, key, value in _changes(registry, item):
        registry.tag(item.name, version, key, value)


def _changes(registry: Mlflow, item: Synced) -> Iterator[tuple[int, str, str]]:
    """The tags that are not as they should be; one that is there no more is emptied."""
    stored = {one.version: one.tags for one in registry.versions(item.name)}
    for one in item.versions:
        old = stored.get(one.version, {})
        wanted = {key: "" for key in old if key.startswith("guard.")} | one.tags
        for key, value in wanted.items():
            if old.get(key) != value:
                yield one.version, key, value
