"""Who acted, and who approved what: invariant 10, by rows alone."""

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from benchmarks.simulation.steps import Schedule, Uploaded
from guard.attest.views import VerdictView
from guard.core.roles import MAY, Act, Role


def artifacts(run: Schedule, upload: Uploaded) -> set[str]:
    """What may come of an upload: its canonical file, and repairs of that."""
    models = run.world.models
    digest = models.canonical.get(upload.kind, "")
    return {digest, *models.repairs(digest)} - {""}


@dataclass
class Approvals:
    """What was seen of acts and reviews so far in one schedule.

    The bucket may hold bytes whose notice has not been worked on. Nobody in the service can know
    of those that a reviewer may have uploaded them, so an approval is measured by what the database
    said before the step. What becomes known later ends it: nothing that is decided from then on
    may rest on it.
    """

    run: Schedule
    views: Mapping[str, VerdictView]  # every verdict so far, by its id; `Watch` adds to it
    reviews: set[str] = field(default_factory=set)
    read: int = 0  # of `views`
    taken: dict[str, tuple[str, int]] = field(default_factory=dict)  # bytes and step, by version
    inspected: dict[str, int] = field(default_factory=dict)  # step, by the uploaded bytes

    def look(self, db: sqlite3.Connection) -> Iterator[tuple[int, str]]:
        """What is wrong with the acts, reviews and verdicts that are new since the last look."""
        step = self.run.world.turns.step
        for version, raw, canonical in db.execute(
            "SELECT version_id, upload_digest, canonical_digest FROM scans ORDER BY rowid"
        ):
            first, _ = self.taken.setdefault(version, (raw, step))  # its repairs come later
            if canonical:
                self.inspected.setdefault(first, step)
        done = db.execute("SELECT principal, role, act, subject FROM acts").fetchall()
        for name, role, act, _ in done:
            if (name, act) in {("login", act), ("guard", Act.CHANGE_POLICY)}:
                continue
            allowed = MAY.get(Act(act))
            if allowed is not None and (not role or Role(role) not in allowed):
                yield 10, f"{name} with role {role or 'none'} did {act}"
        acted = {(name, subject) for name, _, _, subject in done}
        for review_id, verdict_id, reviewer, decision, new in db.execute(
            "SELECT id, verdict_id, reviewer, decision, new_verdict_id FROM reviews"
        ):
            if review_id in self.reviews:
                continue
            self.reviews.add(review_id)
            if (reviewer, new) not in acted:
                yield 10, f"the review of {verdict_id[:8]} is no act of {reviewer}"
            digest = self.views[verdict_id].digest
            # A review is one transaction: what was committed before, it must not overlook.
            if decision == "approve" and reviewer in self.uploaders(digest, step):
                yield 10, f"{reviewer} approved {digest[:8]} and may have uploaded it"
        yield from self._rests()

    def _rests(self) -> Iterator[tuple[int, str]]:
        """New verdicts that rest on an approval by somebody who may have uploaded the artifact."""
        fresh = list(self.views.values())[self.read :]
        self.read = len(self.views)
        # A worker that waited between its look and its verdict may know what it knew then.
        born = min((worker.born for worker in self.run.ran), default=0)
        for view in fresh:
            basis = view.basis
            if basis["kind"] == "reuse":
                basis = self.views[str(basis["verdict"])].basis
            elif "renews" not in basis:
                continue
            who = str(basis.get("reviewer", ""))
            if who in self.uploaders(view.digest, born):
                yield (
                    10,
                    f"a verdict on {view.digest[:8]} rests on the approval of {who}, its owner",
                )

    def uploaders(self, digest: str, step: int) -> set[str]:
        """Who owned a prefix under which an artifact came that the service knew before a step."""
        return {
            name
            for upload in self.run.uploads
            if digest in artifacts(self.run, upload) and self._known(upload, step)
            for prefix, owners in self.run.world.owners.items()
            if upload.key.startswith(prefix)
            for name, since in owners.items()
            if since < step
        }

    def _known(self, upload: Uploaded, step: int) -> bool:
        """Whether the service had an upload's bytes, and knew what comes of them."""
        return any(
            since < step and self.inspected.get(raw, step) < step
            for version, (raw, since) in self.taken.items()
            if version.startswith(upload.version)
        )
