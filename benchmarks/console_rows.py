"""A large registry for the console's benchmark, written as rows: nothing in it was ever scanned."""

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text

from benchmarks.bulk import load
from guard.attest import dsse
from guard.attest.statement import Issue, PolicyName, verdict_statement
from guard.core.evidence import AsrEstimate, Evidence, Finding, Outcome
from guard.core.notes import ScanNotes
from guard.core.roles import Act
from guard.core.states import ScanState, Verdict
from guard.core.verdict import VerdictFacts
from guard.flow.context import Guard
from guard.store import tables
from guard.store.rows import ArtifactKind, PublicationState
from guard.store.session import transaction

CLASSES = 10
HELD_ONE_IN = 50
ACTS, ALARMS = 20_000, 300
_PLACE = "@artifact@"  # where a piece of evidence names its artifact
_MANIFEST = {
    "architecture": "cifar_resnet",
    "num_classes": CLASSES,
    "pretrained_cfg": {"input_size": [3, 32, 32]},
}


def digest_of(*parts: object) -> str:
    """A SHA-256 that is as good as any other."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def fill(guard: Guard, models: int, scans_each: int, evidence_each: int) -> dict[str, str]:
    """Write the rows; returns a held scan (`held`), a cleared one (`live`) and a digest."""
    now = guard.now()
    envelopes = {verdict: _envelope(guard, verdict, now) for verdict in Verdict}
    for entity, rows in (
        (tables.Artifact, _artifacts(models, now)),
        (tables.Scan, _scans(models, scans_each, now)),
        (tables.LedgerEntry, _verdicts(models, scans_each, now, envelopes)),
        (tables.Publication, _publications(models, now, envelopes)),
        (tables.ActRecord, _acts(models, now)),
        (tables.Alarm, _alarms(now)),
    ):
        load(guard.engine, entity, rows)
    _evidence(guard, evidence_each)
    return {
        "held": _scan(0, scans_each - 1),
        "live": _scan(1, scans_each - 1),
        "digest": digest_of("model", 1),
    }


def _scan(model: int, number: int) -> str:
    return digest_of("scan", model, number)[:32]


def _verdict(model: int, number: int) -> str:
    return digest_of("verdict", model, number)[:32]


def _name(model: int) -> str:
    return f"team-{model % 97}/model-{model}"


def _judged(model: int, *, newest: bool) -> Verdict:
    return Verdict.HELD if newest and model % HELD_ONE_IN == 0 else Verdict.CLEARED


def _artifacts(models: int, now: datetime) -> Iterator[dict[str, Any]]:
    for model in range(models):
        yield {
            "digest": digest_of("model", model),
            "size": 10 << 20,
            "kind": ArtifactKind.CANONICAL,
            "parent_digest": None,
            "manifest": _MANIFEST,
            "created_at": now,
        }


def _scans(models: int, each: int, now: datetime) -> Iterator[dict[str, Any]]:
    for number in range(each):
        for model in range(models):
            at = now - timedelta(minutes=(each - number) * models - model)
            yield {
                "id": _scan(model, number),
                "bucket": "models",
                "key": f"{_name(model)}/m.safetensors",
                "version_id": _scan(model, number),
                "name": _name(model),
                "upload_digest": digest_of("upload", model),
                "canonical_digest": digest_of("model", model),
                "manifest": None,
                "detail": ScanNotes(),
                "cleanset_digest": None,
                "cleanset_name": None,
                "policy_digest": digest_of("policy"),
                "state": ScanState.DONE,
                "verdict_id": _verdict(model, number),
                "error": None,
                "submitted_by": f"uploader-{model % 31}",
                "parent_scan_id": _scan(model, 0) if number else None,
                "uploaded_at": at,
                "attempts": 0,
                "lease_token": 1,
                "lease_until": None,
                "created_at": at,
                "updated_at": at,
            }


def _verdicts(
    models: int, each: int, now: datetime, envelopes: dict[Verdict, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    seq = 0
    for number in range(each):
        for model in range(models):
            seq += 1
            verdict = _judged(model, newest=number == each - 1)
            at = now - timedelta(minutes=(each - number) * models - model)
            yield {
                "seq": seq,
                "id": _verdict(model, number),
                "artifact_digest": digest_of("model", model),
                "scan_id": _scan(model, number),
                "verdict": verdict,
                "envelope": envelopes[verdict],
                "previous": digest_of("row", seq - 1),
                "hash": digest_of("row", seq),
                "issued_at": at,
                "expires_at": now + timedelta(hours=model % 720),
                "policy_digest": digest_of("policy"),
            }


def _evidence(guard: Guard, each: int) -> None:
    """As many pieces for each artifact, made by the database itself from one form a piece."""
    forms = []
    for number in range(each):
        item = _item(_PLACE, number).to_dict()
        head, rest = json.dumps(item, ensure_ascii=False).split(_PLACE)
        forms.append(
            {
                "tail": f"{number:04x}",
                "method": item["method"],
                "outcome": item["outcome"],
                "head": head,
                "rest": rest,
            }
        )
    # The artifact is the outer loop, so that all of one lie beside one another, as scans leave it.
    beside, cast = "CROSS JOIN forms", "TEXT"
    if guard.engine.dialect.name == "postgresql":
        beside, cast = "CROSS JOIN LATERAL (SELECT * FROM forms OFFSET 0) forms", "JSON"
    with transaction(guard.engine) as session:
        columns = ", ".join(f"{name} TEXT" for name in forms[0])
        session.execute(text(f"CREATE TEMPORARY TABLE forms ({columns})"))
        session.execute(
            text("INSERT INTO forms VALUES (:tail, :method, :outcome, :head, :rest)"), forms
        )
        values = f"CAST(head || digest || rest AS {cast}), created_at FROM artifacts {beside}"
        into = (
            "INSERT INTO evidence (key, artifact_digest, cleanset_digest, method, version, outcome,"
            " body, created_at) SELECT substr(digest, 1, 60) || tail, digest, :set, method, 1, "
        )
        session.execute(text(f"{into} outcome, {values}"), {"set": digest_of("set")})
        session.execute(text("DROP TABLE forms"))


def _item(artifact: str, number: int) -> Evidence:
    """What a detector leaves about a model: a finding for each of three classes."""
    findings = tuple(
        Finding(
            family="patch",
            target=target,
            suspicious=target == number % 3,
            score=0.5,
            statement=f"A small patch leads to class {target}.",
            asr=AsrEstimate(
                target=target,
                family="patch",
                successes=95,
                trials=100,
                estimate=0.95,
                low=0.9,
                high=0.98,
                natural=0.4,
                budget=9.0,
            ),
        )
        for target in range(3)
    )
    return Evidence(
        artifact=artifact,
        method=f"method_{number % 8}",
        version=1,
        parameters={"steps": 100},
        cleanset=digest_of("set"),
        seed=number,
        outcome=Outcome.FINDINGS,
        families=("patch",),
        findings=findings,
    )


def _publications(
    models: int, now: datetime, envelopes: dict[Verdict, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    for model in range(models):
        if model % HELD_ONE_IN:
            yield {
                "id": digest_of("publication", model)[:32],
                "digest": digest_of("model", model),
                "name": _name(model),
                "version": "1.0",
                "publisher": "folder",
                "archive_digest": digest_of("archive", model),
                "receipt": {},
                "envelope": envelopes[Verdict.CLEARED],
                "state": PublicationState.ACTIVE,
                "at": now,
                "withdrawn_at": None,
                "reason": "",
            }


def _acts(models: int, now: datetime) -> Iterator[dict[str, Any]]:
    for number in range(ACTS):
        yield {
            "id": digest_of("act", number)[:32],
            "act": Act.RESCAN,
            "principal": f"person-{number % 40}",
            "role": "operator",
            "authenticated": True,
            "token_id": "0" * 16,
            "subject": digest_of("model", number % models),
            "detail": "the policy changed",
            "facts": {},
            "at": now,
        }


def _alarms(now: datetime) -> Iterator[dict[str, Any]]:
    for number in range(ALARMS):
        yield {
            "id": digest_of("alarm", number)[:32],
            "kind": "expiring",
            "subject": f"model-{number}",
            "detail": "Its verdict ends soon and no re-scan was finished.",
            "at": now - timedelta(minutes=number),
            "cleared_at": None,
        }


def _envelope(guard: Guard, verdict: Verdict, now: datetime) -> dict[str, Any]:
    facts = VerdictFacts(
        verdict=verdict,
        reasons=("All methods together find class 2 unusual.", "A person must look."),
        score=0.5,
        coverage=("patch",),
        evidence=tuple(digest_of("evidence", 0, number) for number in range(8)),
    )
    issue = Issue(
        verdict_id=digest_of("v")[:32],
        scan_id=digest_of("s")[:32],
        name="bench",
        policy=PolicyName(name="default", digest=digest_of("policy")),
        cleanset=digest_of("set"),
        basis={"kind": "policy"},
        issued_at=now,
        expires_at=now + timedelta(days=30),
    )
    body = verdict_statement(digest_of("model", 0), facts, issue)
    return dict(dsse.sign(body, guard.signer))
