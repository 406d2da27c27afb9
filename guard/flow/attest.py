"""Sign a summary of a verdict that other tools read (VSA, SVR), as the gate judges it now."""

from typing import Any

from guard.attest import dsse, gate
from guard.attest.summaries import svr_statement, vsa_statement
from guard.attest.views import read_verdict
from guard.core.digests import json_digest
from guard.core.errors import NotServable
from guard.core.roles import Act
from guard.core.summaries import Summary
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow._standing import standing
from guard.flow.context import Guard
from guard.flow.principals import Principal, permit
from guard.flow.report import row_on
from guard.store.session import reading, transaction


def summarise(
    guard: Guard, wanted: str, kind: Summary, by: Principal | str
) -> tuple[dict[str, Any], str]:
    """Sign a summary of the verdict in force about a model; returns the envelope and a refusal.

    The refusal is empty where an enforcing gate passes the model. An SVR has no way to state one,
    so that none is made; a VSA states that the verification failed.

    Args:
        wanted: the name it is served under or was uploaded as, a digest, or a scan.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`.
        InputError: nothing of that kind is known, it has no verdict, or this process has no key.
        IntegrityMismatch: the signed verdict or the ledger was changed.
        NotServable: an SVR was asked for, and the gate refuses the model.
    """
    with reading(guard.engine) as session:
        permit(guard, session, by, Act.ATTEST)
    row, now = row_on(guard, wanted), guard.now()
    revoked, refusal = standing(guard, whole=True).check().revoked, ""
    try:
        view = gate.servable(
            row.envelope,
            guard.trusted,
            digest=row.artifact_digest,
            now=now,
            revoked=revoked,
            ledger_row=row,
        )
    except NotServable as error:
        if kind is Summary.SVR:
            raise
        view, refusal = read_verdict(dsse.verify(row.envelope, guard.trusted)), error.sentence
    if kind is Summary.SVR:
        statement = svr_statement(view, at=now)
    else:
        statement = vsa_statement(view, row.envelope, passed=not refusal, at=now)
    envelope = dsse.sign(statement, guard.signer)
    with transaction(guard.engine) as session:
        who = permit(guard, session, by, Act.ATTEST)
        facts = {"kind": str(kind), "envelope": json_digest(envelope)}
        note(guard, session, who, Act.ATTEST, row.artifact_digest, str(kind), facts)
    settle(guard)
    return envelope, refusal
