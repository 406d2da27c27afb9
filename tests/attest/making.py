"""A signing authority, one verdict and a ledger, made with the guard's own code."""

import dataclasses
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from guard.attest import dsse
from guard.attest.keys import Signer, TrustedKeys
from guard.attest.statement import verdict_statement
from guard.core.evidence import AsrEstimate
from guard.core.ledger import GENESIS, row_hash
from guard.core.states import Verdict
from guard.store.rows import LedgerRow

NOW = datetime(2026, 11, 21, 8, 30, 15, 123456, tzinfo=UTC)
DIGEST = "d" * 64
OTHER = "e" * 64
ASR = AsrEstimate(
    target=3, family="patch", successes=9, trials=10, estimate=0.9, low=0.6, high=0.98, natural=0.1
)


def a_signer(folder: Path) -> Signer:
    return Signer.load_or_create(folder / f"{uuid.uuid4().hex}.pem")


def trusting(*signers: Signer) -> TrustedKeys:
    return TrustedKeys({signer.key_id: signer.public for signer in signers})


def a_statement(**fields: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "digest": DIGEST,
        "name": "m",
        "verdict_id": "1" * 32,
        "scan_id": "2" * 32,
        "verdict": Verdict.CLEARED,
        "score": 0.25,
        "target": 3,
        "asr": ASR,
        "coverage": ("patch",),
        "reasons": ("Cleared.",),
        "evidence": ("f" * 64,),
        "policy_name": "default",
        "policy_digest": "a" * 64,
        "cleanset": "b" * 64,
        "parent": None,
        "basis": {"kind": "policy"},
        "issued_at": NOW,
        "expires_at": NOW + timedelta(days=30),
    }
    return verdict_statement(**{**values, **fields})


@dataclass(frozen=True)
class Books:
    """A ledger in memory."""

    signer: Signer
    rows: tuple[LedgerRow, ...] = ()

    def add(self, **fields: Any) -> "Books":
        statement = a_statement(**{"verdict_id": uuid.uuid4().hex, **fields})
        said = statement["predicate"]
        previous = self.rows[-1].hash if self.rows else GENESIS
        values: dict[str, Any] = {
            "seq": len(self.rows) + 1,
            "id": said["verdict_id"],
            "artifact_digest": statement["subject"][0]["digest"]["sha256"],
            "scan_id": said["scan_id"],
            "verdict": Verdict(said["verdict"]),
            "envelope": dsse.sign(statement, self.signer),
            "issued_at": fields.get("issued_at", NOW),
            "expires_at": fields.get("expires_at", NOW + timedelta(days=30)),
            "policy_digest": said["policy"]["digest"],
        }
        row = LedgerRow(**values, previous=previous, hash=row_hash(previous, values))
        return dataclasses.replace(self, rows=(*self.rows, row))
