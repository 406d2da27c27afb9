"""What somebody may read, as conditions of queries.

Rows that hang on a scan are seen where the scan is, and a scan where its object lies. Every
condition is part of the query itself: what is not seen is not read, and an id of it is as unknown
as one that does not exist. `Scope` without places sees everything and adds no condition.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, exists, false, func, or_, select

from guard.core.roles import Act
from guard.store._read import table
from guard.store.project_tables import Project
from guard.store.tables import ActRecord, LedgerEntry, Publication, Scan

_PROJECTS, _SCANS, _VERDICTS = table(Project), table(Scan), table(LedgerEntry)
_SERVED, _ACTS = table(Publication), table(ActRecord)
Conditions = tuple[ColumnElement[bool], ...]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A prefix of a bucket, but for what lies under longer prefixes of other projects."""

    bucket: str
    prefix: str
    without: tuple[str, ...] = ()

    def holds(self, bucket: str, key: str) -> bool:
        """Whether an object lies here."""
        inside = bucket == self.bucket and key.startswith(self.prefix)
        return inside and not key.startswith(self.without)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What one principal may read.

    `places` is None for whoever sees everything; `projects` are the names of their projects, and
    with `rest` they also see what lies in none of `taken`, the places of all projects.
    """

    principal: str = ""
    places: tuple[Place, ...] | None = None
    projects: frozenset[str] = frozenset()
    rest: bool = False
    taken: tuple[Place, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing is hidden."""
        return self.places is None

    def reads_project(self, name: str) -> bool:
        """Whether a project is seen itself, with its members and limits."""
        return self.everything or name in self.projects

    def sees(self, bucket: str, key: str) -> bool:
        """Whether an object is seen; what `at` says in a query."""
        if self.places is None or any(one.holds(bucket, key) for one in self.places):
            return True
        return self.rest and not any(one.holds(bucket, key) for one in self.taken)

    def at(self, bucket: ColumnElement[Any], key: ColumnElement[Any]) -> Conditions:
        """Of rows with a bucket and a key."""
        if self.places is None:
            return ()
        found = [and_(bucket == one.bucket, _inside(key, one)) for one in self.places]
        if self.rest:
            covers = func.substr(key, 1, func.length(_PROJECTS.c.prefix)) == _PROJECTS.c.prefix
            found.append(~exists().where(_PROJECTS.c.bucket == bucket, covers))
        return (or_(false(), *found),)

    def scans(self, of: FromClause = _SCANS) -> Conditions:
        """Of scans."""
        return self.at(of.c.bucket, of.c.key)

    def of_scan(self, scan_id: ColumnElement[Any]) -> Conditions:
        """Of rows that name a scan by its id."""
        if self.everything:
            return ()
        scan = _SCANS.alias()
        return (exists().where(scan.c.id == scan_id, *self.scans(scan)),)

    def artifacts(self, digest: ColumnElement[Any]) -> Conditions:
        """Of rows that name an artifact: one of a scan that is seen."""
        if self.everything:
            return ()
        scan = _SCANS.alias()
        same = or_(scan.c.canonical_digest == digest, scan.c.upload_digest == digest)
        return (exists().where(same, *self.scans(scan)),)

    def published(self, of: FromClause = _SERVED) -> Conditions:
        """Of publications: those of a scan that is seen, under its name."""
        if self.everything:
            return ()
        scan = _SCANS.alias()
        same = (scan.c.canonical_digest == of.c.digest, scan.c.name == of.c.name)
        return (exists().where(*same, *self.scans(scan)),)

    def alarms(self, subject: ColumnElement[Any]) -> Conditions:
        """Of alarms: those about an object, a scan, an artifact or a version that is seen.

        What is about the installation, such as a worker or the ledger, is not.
        """
        if self.places is None:
            return ()
        version = _SERVED.alias()
        titles = select(version.c.name + " " + version.c.version)
        served = subject.in_(titles.where(*self.published(version)))
        objects = [_inside(subject, one, f"s3://{one.bucket}/") for one in self.places]
        return (or_(*objects, *self.of_scan(subject), *self.artifacts(subject), served),)

    def acts(self, of: FromClause = _ACTS) -> Conditions:
        """Of acts: one's own, and those about a project, a model, a verdict or a waiver seen."""
        if self.everything:
            return ()
        # What is seen is read once, not for each of perhaps a million acts.
        scan, asked = _SCANS.alias(), _ACTS.alias()
        seen = [
            select(column).where(*self.scans(scan))
            for column in (scan.c.canonical_digest, scan.c.upload_digest)
        ]
        verdicts = select(_VERDICTS.c.id).where(
            _VERDICTS.c.scan_id.in_(select(scan.c.id).where(*self.scans(scan)))
        )
        waivers = select(asked.c.id).where(
            asked.c.act == Act.WAIVE, or_(*(asked.c.subject.in_(one) for one in seen))
        )
        about = [of.c.subject.in_(one) for one in (*seen, verdicts, waivers)]
        named = of.c.subject.in_(sorted(self.projects))
        return (or_(of.c.principal == self.principal, named, *about),)

    def nothing(self) -> Conditions:
        """Of rows that are the installation's: no condition, or one that none meets."""
        return () if self.everything else (false(),)


#: What operators and the service itself see.
EVERYTHING = Scope()


def _inside(column: ColumnElement[Any], place: Place, before: str = "") -> ColumnElement[bool]:
    """Whether a key, with `before` in front of it, lies at a place; the bucket is not asked."""
    without = (~_starts(column, before + other) for other in place.without)
    return and_(_starts(column, before + place.prefix), *without)


def _starts(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    return func.substr(column, 1, len(text)) == text
