"""A guard on real SQLite, real blobs and a folder as the place to serve.

Uploads come in without S3.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
from sqlalchemy import bindparam, select

from guard.bootstrap import open_guard
from guard.cleansets import curate, read_source
from guard.core.evidence import Accuracy, AsrEstimate, Evidence, Finding, Outcome
from guard.core.manifest import Manifest
from guard.core.notes import ScanNotes
from guard.core.states import ScanState
from guard.detectors import DETECTORS
from guard.ml.networks import architectures
from guard.ml.seeds import seeded
from guard.publishers.folder import Folder
from guard.settings import load_settings
from guard.store import artifacts, cleansets, evidence, ledger, scans
from guard.store._read import table
from guard.store.rows import ArtifactKind, LedgerRow, ScanRow
from guard.store.session import reading, transaction
from guard.store.tables import Outbox
from guard.store.types import Utc
from guard.vetting import examine
from tests.sqlite import migrate_like_bootstrap

if TYPE_CHECKING:
    from guard.flow.context import Guard

MANIFEST = Manifest.from_dict(
    {
        "architecture": "cifar_resnet",
        "num_classes": 5,
        "model_args": {"depths": [1], "width": 4},
        "pretrained_cfg": {"input_size": [1, 8, 8]},
    }
)
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

#: Columns that the table had from the beginning: a test may hold an older schema.
_TASKS = (
    select(table(Outbox).c.task)
    .where(
        table(Outbox).c.sent_at.is_(None), table(Outbox).c.not_before <= bindparam("now", type_=Utc)
    )
    .order_by(table(Outbox).c.not_before, table(Outbox).c.id)
)


class Place:
    """What a test works with; `clock` can be moved, `env` holds further settings."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        settings = load_settings(
            {"GUARD_DATA_DIR": str(folder / "data"), "GUARD_LEASE_SECONDS": "30", **(env or {})}
        )
        migrate_like_bootstrap(settings)
        self.clock = NOW
        self.served = folder / "served"
        self.guard: Guard = replace(
            open_guard(settings),
            now=lambda: self.clock,
            make_publisher=lambda: Folder(root=self.served),
        )
        self.folder = folder

    def upload(
        self,
        data: bytes | None = None,
        *,
        name: str = "model",
        manifest: str | None = "",
        file: str = "model.safetensors",
        by: str | None = "alice",
        seed: int = 0,
        trace: str | None = None,
        under: str = "",
    ) -> str:
        """Record an upload as `receive` does; returns the scan's id.

        The default is a small fresh network. `under` is a folder before the model's, with a slash.
        """
        if data is None:
            with seeded(seed):
                data = safetensors.torch.save(architectures.export(architectures.build(MANIFEST)))
        text = json.dumps(MANIFEST.to_dict()) if manifest == "" else manifest
        digest = self.guard.blobs.put_bytes(data)
        scan_id = uuid.uuid4().hex
        with transaction(self.guard.engine) as session:
            artifacts.put(
                session, digest=digest, size=len(data), kind=ArtifactKind.UPLOAD, now=self.clock
            )
            scans.insert(
                session,
                scan_id=scan_id,
                bucket="models",
                key=f"models/{under}{name}/{file}",
                version_id=scan_id,
                name=name,
                now=self.clock,
                upload_digest=digest,
                manifest=text,
                submitted_by=by,
                detail=ScanNotes(trace=trace),
            )
        return scan_id

    def add_cleanset(self, name: str = "squares", size: int = 8, seed: int = 0) -> str:
        """Store a small clean set of noise; returns its digest."""
        rng = np.random.default_rng(seed)
        path = self.folder / f"{name}.npz"
        np.savez(
            path,
            images=rng.integers(0, 256, (400, 1, size, size), dtype=np.uint8),
            labels=np.arange(400) % 5,
        )
        blob, facts = curate(read_source(path), name)
        with transaction(self.guard.engine) as session:
            cleansets.put(session, facts, self.clock)
        return self.guard.blobs.put_bytes(blob)

    def with_evidence(
        self,
        scan_id: str,
        *findings: Finding,
        outcome: Outcome = Outcome.FINDINGS,
        smoke: bytes = b'{"images":["aGk="],"probabilities":[[0.2,0.2,0.2,0.2,0.2]]}',
    ) -> ScanRow:
        """Put a scan where detection would have left it.

        With this evidence of the default policy's detector.
        """
        cleanset = self.add_cleanset()
        scan = self.scan(scan_id)
        digest = scan.canonical_digest or ""
        detector = DETECTORS.get("patch_inversion")()
        item = Evidence(
            artifact=digest,
            method="patch_inversion",
            version=detector.version,
            parameters=detector.parameters(),
            cleanset=cleanset,
            seed=0,
            outcome=outcome,
            families=("patch",),
            findings=findings,
        )
        accuracy = Accuracy(overall=0.9, per_class=(0.9,) * 5, images=120)
        smoke_digest = self.guard.blobs.put_bytes(smoke)
        with transaction(self.guard.engine) as session:
            evidence.add(session, item, self.clock)
            evidence.add(
                session, examine.accuracy_evidence(digest, cleanset, accuracy, 0), self.clock
            )
            return scans.move(
                session,
                scan_id,
                ScanState.DECIDING,
                self.clock,
                cleanset_digest=cleanset,
                cleanset_name="squares",
                detail=replace(
                    scan.detail,
                    smoke=smoke_digest,
                    rescan=scan.detail.rescan and replace(scan.detail.rescan, unseen=False),
                ),
            )

    def scan(self, scan_id: str) -> ScanRow:
        """The row as it is."""
        with reading(self.guard.engine) as session:
            return scans.get(session, scan_id)

    def verdicts(self, scan_id: str) -> list[LedgerRow]:
        """Every verdict of a scan."""
        with reading(self.guard.engine) as session:
            return ledger.for_scan(session, scan_id)

    def messages(self) -> list[str]:
        """The tasks in the outbox, oldest first."""
        with reading(self.guard.engine) as session:
            return list(session.execute(_TASKS, {"now": self.clock}).scalars())


def finding(
    *, suspicious: bool, natural: float | None = None, estimate: float = 0.95, score: float = 0.9
) -> Finding:
    """What a detector might say about class 2."""
    asr = AsrEstimate(
        target=2,
        family="patch",
        successes=95,
        trials=100,
        estimate=estimate,
        low=estimate - 0.05,
        high=min(1.0, estimate + 0.03),
        natural=natural,
        budget=9.0,
    )
    return Finding(
        family="patch",
        target=2,
        suspicious=suspicious,
        score=score,
        statement="A small patch leads to class 2.",
        asr=asr,
    )
