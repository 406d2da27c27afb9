"""A registry of served models under a clock that a test moves, without a detector that runs.

Evidence is put into the store as the default policy's detectors would leave it.
"""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from guard.core.evidence import Accuracy, Evidence, Outcome
from guard.core.states import ScanState
from guard.detectors import DETECTORS
from guard.flow import rescan, run_stage
from guard.flow.reconcile import reconcile_guard
from guard.store import evidence, outbox, publications, scans
from guard.store.rows import PublicationRow, ScanRow
from guard.store.session import reading, transaction
from guard.vetting import canary_trial, examine
from tests.flow.place import Place

SMOKE = b'{"images":["aGk="],"probabilities":[[0.2,0.2,0.2,0.2,0.2]]}'
STAGES = frozenset({"inspect", "detect", "decide", "purify", "publish"})


@dataclass
class Registry:
    """`detected` counts the detect stages that did something, by scan."""

    folder: Path
    place: Place = field(init=False)
    cleanset: str = field(init=False)
    detected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place = Place(self.folder)
        self.cleanset = self.place.add_cleanset()

    def settle(self, **changes: object) -> None:
        """Other settings from now on."""
        guard = self.place.guard
        self.place.guard = replace(guard, settings=replace(guard.settings, **changes))  # type: ignore[arg-type]

    def obey(self, **changes: object) -> None:
        """Another policy from now on."""
        guard = self.place.guard
        self.place.guard = replace(guard, policy=replace(guard.policy, **changes))  # type: ignore[arg-type]

    def pass_time(self, **spans: float) -> None:
        self.place.clock += timedelta(**spans)

    def work(self) -> None:
        """Do every message that is due, as workers would; detection leaves what detectors would."""
        while True:
            with transaction(self.place.guard.engine) as session:
                due = outbox.due(session, self.place.clock, 100)
                outbox.mark_sent(session, [row.id for row in due], self.place.clock)
            if not due:
                return
            for row in due:
                scan_id = str(row.payload["scan_id"])
                if row.task == "detect":
                    self.detect(scan_id)
                else:
                    run_stage.work(self.place.guard, row.task, scan_id)

    def detect(self, scan_id: str) -> None:
        """What the detect stage leaves where no detector finds anything."""
        guard, scan = self.place.guard, self.place.scan(scan_id)
        self.detected.append(scan_id)
        digest = scan.canonical_digest or ""
        smoke = guard.blobs.put_bytes(SMOKE)
        with transaction(guard.engine) as session:
            for name, rule in guard.policy.detectors.items():
                detector = DETECTORS.get(name)(**dict(rule.params))
                item = Evidence(
                    artifact=digest,
                    method=name,
                    version=detector.version,
                    parameters=detector.parameters(),
                    cleanset=self.cleanset,
                    seed=0,
                    outcome=Outcome.NOTHING,
                    families=tuple(sorted(detector.families)),
                )
                evidence.add(session, item, self.place.clock)
            accuracy = Accuracy(overall=0.9, per_class=(0.9,) * 5, images=120)
            measured = examine.accuracy_evidence(digest, self.cleanset, accuracy, 0)
            evidence.add(session, measured, self.place.clock)
            scans.move(
                session,
                scan_id,
                ScanState.DECIDING,
                self.place.clock,
                cleanset_digest=self.cleanset,
                cleanset_name="squares",
                detail=replace(scan.detail, smoke=smoke, canary=canary_trial.kit_digest()),
            )
            outbox.add(session, "decide", {"scan_id": scan_id}, self.place.clock)

    def upload(self, name: str, **more: object) -> str:
        """An upload that is worked on until it rests; returns its scan's id."""
        scan_id = self.place.upload(name=name, **more)  # type: ignore[arg-type]
        with transaction(self.place.guard.engine) as session:
            outbox.add(session, "inspect", {"scan_id": scan_id}, self.place.clock)
        self.work()
        return scan_id

    def tick(self) -> list[str]:
        """What beat starts, and the work that it makes."""
        opened = rescan.renew(self.place.guard)
        self.work()
        reconcile_guard(self.place.guard)
        self.work()
        return opened

    def served(self) -> dict[str, str | None]:
        """Digest by name, as the serving system answers."""
        return {one.name: one.digest for one in self.place.guard.publisher.state()}

    def active(self) -> list[PublicationRow]:
        with reading(self.place.guard.engine) as session:
            return publications.active(session)

    def scan(self, scan_id: str) -> ScanRow:
        return self.place.scan(scan_id)
