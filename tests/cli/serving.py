"""Models that are really published, through the gate, into a folder."""

import shutil
import uuid
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.numpy

from guard.attest import gate
from guard.core.contracts import Smoke
from guard.core.states import Verdict
from guard.store import ledger, publications
from guard.store.rows import ScanRow
from guard.store.session import transaction
from tests.cli.conftest import Service
from tests.reports.samples import MODEL


def published(service: Service, verdict: Verdict = Verdict.CLEARED) -> ScanRow:
    """A cleared model, published through the gate; another one where the policy only warns."""
    metadata = {"guard.manifest": MODEL.canonical().decode(), "guard.format": "1"}
    data = safetensors.numpy.save({"w": np.zeros(3, np.float32)}, metadata=metadata)
    scan, guard = service.scan(verdict, data=data), service.guard
    digest = str(scan.canonical_digest)
    with transaction(guard.engine) as session:
        row = ledger.get(session, str(scan.verdict_id))
        approved = gate.approve(
            row.envelope,
            guard.trusted,
            digest=digest,
            now=guard.now(),
            revoked=set(),
            ledger_row=row,
            name=scan.name,
            version="1.0",
            signer=guard.signer,
            mode=guard.policy.gate_mode,
        )
        with guard.blobs.open(digest) as weights:
            receipt = guard.publisher.publish(approved, weights, Smoke(images=(), probabilities=()))
        publications.add(
            session,
            publication_id=uuid.uuid4().hex,
            digest=digest,
            name=scan.name,
            version="1.0",
            publisher="folder",
            archive_digest=receipt.archive_digest,
            receipt=asdict(receipt),
            envelope=approved.release_envelope,
            now=guard.now(),
        )
    return scan


def foreign(service: Service) -> Path:
    """Somebody copies the served model under another name, behind the guard's back."""
    root = service.guard.settings.data_dir / "served"
    shutil.copytree(root / "digits", root / "foreign")
    return root / "foreign"
