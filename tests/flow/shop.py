"""Several teams' uploads on real SQLite, real blobs and a folder to serve from.

Four small models were inspected beforehand; three of them are clean.
"""

import shutil
import uuid
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path

from guard.core.states import ScanState
from guard.flow import run_stage
from guard.flow._served_name import prefix_of, served_name
from guard.store import claims, cleansets, scans
from guard.store.session import reading, transaction
from tests.flow.place import NOW, Place, finding
from tests.services import scratch

BACKDOORED = 3
BUCKET = "models"


@cache
def _template() -> tuple[Path, tuple[str, ...]]:
    folder = scratch("shop")
    place = Place(folder)
    uploads = [place.upload(name=f"seed-{seed}", seed=seed) for seed in range(4)]
    for scan_id in uploads:
        assert run_stage.work(place.guard, "inspect", scan_id)
    digests = tuple(place.scan(scan_id).canonical_digest or "" for scan_id in uploads)
    _ = place.guard.signer  # makes the key
    place.add_cleanset()
    place.guard.engine.dispose()
    return folder / "data", digests


class Shop(Place):
    """A place whose uploads come as far as detection at once."""

    def __init__(
        self, folder: Path, env: Mapping[str, str] | None = None, *, data: Path | None = None
    ) -> None:
        """Begin with the template's data, or with those of another shop."""
        template, self.models = _template()
        shutil.copytree(data or template, folder / "data")
        super().__init__(folder, env)

    def put(self, key: str, model: int = 0, *, by: str | None = "ann", at: int = 0) -> str:
        """Record an upload that the store took `at` seconds after the start; the scan's id.

        As `receive` does, and then as the `inspect` stage does.

        Raises:
            NameTaken: the name is another's.
        """
        self.clock += timedelta(seconds=1)
        scan_id, digest = uuid.uuid4().hex, self.models[model]
        with transaction(self.guard.engine) as session:
            claim = claims.take(
                session,
                name=served_name(BUCKET, key, strip="models/"),
                bucket=BUCKET,
                prefix=prefix_of(key),
                owner=by,
                now=self.clock,
            )
            scans.insert(
                session,
                scan_id=scan_id,
                bucket=BUCKET,
                key=key,
                version_id=scan_id,
                name=claim.name,
                now=self.clock,
                upload_digest=digest,
                submitted_by=by,
                uploaded_at=NOW + timedelta(seconds=at),
            )
            for state in (ScanState.INSPECTING, ScanState.DETECTING):
                scans.move(session, scan_id, state, self.clock, canonical_digest=digest)
        return scan_id

    def add_cleanset(self, name: str = "squares", size: int = 8, seed: int = 0) -> str:
        """The one of the template."""
        with reading(self.guard.engine) as session:
            there = [facts.digest for facts in cleansets.list_all(session) if facts.name == name]
        return there[0] if there else super().add_cleanset(name, size, seed)

    def finish(self, scan_id: str) -> None:
        """Detection, decision and publication."""
        self.clock += timedelta(seconds=1)
        digest = self.scan(scan_id).canonical_digest or ""
        self.with_evidence(scan_id, finding(suspicious=digest == self.models[BACKDOORED]))
        run_stage.work(self.guard, "decide", scan_id)
        run_stage.work(self.guard, "publish", scan_id)

    def serve(self, key: str, model: int = 0, *, by: str | None = "ann", at: int = 0) -> str:
        """`put` and `finish`."""
        scan_id = self.put(key, model, by=by, at=at)
        self.finish(scan_id)
        return scan_id

    @property
    def answers(self) -> dict[str, int]:
        """Which model each name answers with."""
        return {
            one.name: self.models.index(one.digest or "") for one in self.guard.publisher.state()
        }
