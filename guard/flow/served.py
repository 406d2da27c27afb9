"""List what is served, with the gate's present judgement of each model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from guard.core.contracts import Served
from guard.core.errors import IntegrityMismatch, NotServable
from guard.core.states import Verdict
from guard.core.verdict import Gated
from guard.flow import _newest
from guard.flow._aging import root_of
from guard.flow._modality import mode_of
from guard.flow._standing import standing
from guard.flow._warning import let_through, permission
from guard.flow.context import Guard
from guard.store import projects, publications
from guard.store.session import reading

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


@dataclass(frozen=True)
class ServedRow:
    """One served model with the gate's judgement now.

    `vetted`: it passes, also where the gate enforces; `why` is the reason for a refusal. `gate` is
    what lets it through all the same, where the gate only warns.
    """

    served: Served
    vetted: bool
    why: str
    verdict: Verdict | None = None
    gate: Gated | None = None


def served(guard: Guard) -> list[ServedRow]:
    """Ask the serving system what it serves, and the gate whether each model may be served.

    Raises:
        Unavailable: the serving system did not answer.
    """
    state = guard.publisher.state()
    ledger_now, trusted = standing(guard, patient=True), guard.trusted
    with reading(guard.engine) as session:
        known = {(row.name, row.version): row for row in publications.active(session)}
        verdicts, modes, apart = {}, {}, bool(projects.with_policy(session))
        for key, there in known.items():
            root = root_of(session, there) if apart else None
            verdicts[key] = _newest.verdict(session, there.digest, trusted, root)
            modes[key] = mode_of(guard, session, root)
    rows = []
    for item in state:
        publication = known.get((item.name, item.version))
        why, stated, verdict = "", None, None
        if publication is None:
            why = "it was not published through the guard"
        elif item.digest != publication.digest:
            why = "the served bytes are not those that were vetted"
        elif item.detail.get("problem"):
            why = str(item.detail["problem"])
        else:
            row = verdicts[item.name, item.version]
            try:
                ledger_now.check()
                if row is None:
                    raise NotServable("there is no verdict about it")
                verdict = row.verdict
                stated = permission(
                    row,
                    publication,
                    trusted,
                    now=guard.now(),
                    revoked=ledger_now.revoked,
                    mode=modes[item.name, item.version],
                )
                why = stated.sentence if stated is not None else ""
            except (NotServable, IntegrityMismatch) as error:
                why = error.sentence
        rows.append(ServedRow(served=item, vetted=not why, why=why, verdict=verdict, gate=stated))
    return rows


def on_warning(session: "Session") -> dict[str, Gated]:
    """What is served only because the gate warns, by name and version, as its release states."""
    return let_through(session)
