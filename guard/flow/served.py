"""List what is served, with the gate's present judgement of each model."""

from dataclasses import dataclass

from guard.attest import gate
from guard.core.contracts import Served
from guard.core.errors import IntegrityMismatch, NotServable
from guard.flow._standing import standing
from guard.flow.context import Guard
from guard.store import ledger, publications
from guard.store.session import reading


@dataclass(frozen=True)
class ServedRow:
    """One served model; `vetted` is the gate's judgement now, `why` its reason for a refusal."""

    served: Served
    vetted: bool
    why: str


def served(guard: Guard) -> list[ServedRow]:
    """Ask the serving system what it serves, and the gate whether each model may be served.

    Raises:
        Unavailable: the serving system did not answer.
    """
    state = guard.publisher.state()
    ledger_now = standing(guard, patient=True)
    with reading(guard.engine) as session:
        known = {(row.name, row.version): row for row in publications.active(session)}
        verdicts = {row.digest: ledger.latest_for(session, row.digest) for row in known.values()}
    rows = []
    for item in state:
        publication = known.get((item.name, item.version))
        why = ""
        if publication is None:
            why = "it was not published through the guard"
        elif item.digest != publication.digest:
            why = "the served bytes are not those that were vetted"
        elif item.detail.get("problem"):
            why = str(item.detail["problem"])
        else:
            row = verdicts[publication.digest]
            try:
                ledger_now.check()
                if row is None:
                    raise NotServable("there is no verdict about it")
                gate.servable(
                    row.envelope,
                    guard.trusted,
                    digest=publication.digest,
                    now=guard.now(),
                    revoked=ledger_now.revoked,
                    ledger_row=row,
                )
            except (NotServable, IntegrityMismatch) as error:
                why = error.sentence
        rows.append(ServedRow(served=item, vetted=not why, why=why))
    return rows
