"""Check the ledger, the acts, the blobs and the served models for changes outside the guard."""

from guard.attest import acts
from guard.attest.chain import verify_chain
from guard.core.errors import GuardError, Unavailable
from guard.flow import _acts
from guard.flow._seal import unrecorded
from guard.flow._standing import standing
from guard.flow._trust import left_over
from guard.flow.context import Guard
from guard.flow.served import served
from guard.store import ledger, ledger_acts
from guard.store.rows import LedgerRow
from guard.store.session import reading


def _ledger(guard: Guard, rows: list[LedgerRow]) -> list[str]:
    """What is wrong with the ledger itself: chains, signatures, checkpoints, trusted keys."""
    found, trusted = standing(guard, whole=True), guard.trusted
    with reading(guard.engine) as session:
        done = list(_acts.problems(guard, session))
        signed = ledger_acts.rows(session)
    if not trusted.keys:
        return [*found.broken, *done]  # no signature counts without a key
    stray = unrecorded(found, trusted) + [
        f"Key {key_id[:16]} is in the file of trusted keys, though an act distrusts it; it counts "
        f"only where nobody reads the ledger. `guard keys distrust {key_id[:16]}` takes it out."
        for key_id in left_over(guard)
    ]
    problems = [*found.broken, *found.missing, *stray]
    problems += verify_chain(rows, trusted) + acts.unsigned(signed, trusted)
    return [*problems, *done]


def verify(guard: Guard, digest: str | None = None) -> list[str]:
    """Every problem found, one sentence each; an empty list means that all checks passed.

    Args:
        digest: check only what concerns this artifact (the chain is always checked whole).
    """
    with reading(guard.engine) as session:
        rows = ledger.rows(session)
    problems = _ledger(guard, rows)
    wanted = {
        row.artifact_digest for row in rows if digest is None or row.artifact_digest == digest
    }
    if digest is not None and not wanted:
        problems.append(f"The ledger has no verdict about {digest}.")
    for item in sorted(wanted):
        try:
            guard.blobs.path(item)
        except Unavailable:
            raise
        except GuardError as error:
            problems.append(error.sentence)
    problems.extend(
        f"{row.served.name} {row.served.version} is served, but {row.why}."
        for row in served(guard)
        if not row.vetted and row.gate is None and (digest is None or row.served.digest == digest)
    )
    return problems
