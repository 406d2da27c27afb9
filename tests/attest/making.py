"""A signing authority, one verdict and a ledger, made with the guard's own code."""

import dataclasses
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from guard.attest import dsse
from guard.attest.keys import Signer, TrustedKeys
from guard.attest.statement import Issue, PolicyName, verdict_statement
from guard.core.evidence import AsrEstimate
from guard.core.ledger import GENESIS, row_hash
from guard.core.states import Verdict
from guard.core.verdict import VerdictFacts
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


FACTS = VerdictFacts(
    verdict=Verdict.CLEARED,
    reasons=("Cleared.",),
    score=0.25,
    target=3,
    asr=ASR,
    coverage=("patch",),
    evidence=("f" * 64,),
)
ISSUE = Issue(
    name="m",
    verdict_id="1" * 32,
    scan_id="2" * 32,
    policy=PolicyName(name="default", digest="a" * 64),
    cleanset="b" * 64,
    basis={"kind": "policy"},
    issued_at=NOW,
    expires_at=NOW + timedelta(days=30),
)


def a_statement(digest: str = DIGEST, **fields: Any) -> dict[str, Any]:
    """A verdict's statement; `fields` are of its facts or of its issue."""
    own = {field.name for field in dataclasses.fields(VerdictFacts)}
    facts = {name: value for name, value in fields.items() if name in own}
    issue = {name: value for name, value in fields.items() if name not in own}
    if "policy_digest" in issue:
        issue["policy"] = PolicyName(name="default", digest=issue.pop("policy_digest"))
    return verdict_statement(
        digest, dataclasses.replace(FACTS, **facts), dataclasses.replace(ISSUE, **issue)
    )


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
