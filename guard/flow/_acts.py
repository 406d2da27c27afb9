"""What principals do, as rows that the ledger's chain seals.

A row is written in the transaction of the act. Where the process has the signing key and the ledger
is open, its seal is too; otherwise `guard.flow._seal` adds it when it next looks.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from guard.attest import acts as signing
from guard.attest import dsse
from guard.core.errors import InputError
from guard.core.modality import Modality
from guard.core.roles import Act
from guard.flow.principals import Principal
from guard.store import acts, ledger_acts

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.attest.keys import Signer
    from guard.flow.context import Guard
    from guard.store.rows import ActRow

#: Who noticed what nobody asked for; no token is ever given out under this name.
GUARD = "guard"
#: An act without a seal for longer than this is reported: the process with the key looks every few
#: seconds.
SEAL_WITHIN = timedelta(minutes=15)
BATCH = 500  # rows in memory at once


def note(
    guard: "Guard",
    session: "Session",
    who: Principal,
    act: Act,
    subject: str,
    detail: str,
    facts: Mapping[str, Any] | None = None,
) -> "ActRow":
    """Record an act in the transaction that does it, and seal it where this process can.

    Args:
        subject: what it is about: a digest, a name, a principal, the id of a verdict or an act.
        detail: for people to read; the reason, where one was given.
        facts: for programs to read: texts, whole numbers and lists of them.

    Raises:
        InputError: nobody is named who does it.
    """
    if not who.name.strip():
        raise InputError("An act needs the name of whoever does it.", code="nobody_acts")
    row = acts.add(
        session,
        act=act,
        principal=who.name,
        role=str(who.role or ""),
        authenticated=who.authenticated,
        token_id=who.token_id,
        subject=subject,
        detail=detail,
        facts=facts or {},
        now=guard.now(),
    )
    # Before the ledger's first checkpoint nothing may stand in this chain.
    if has_key(guard) and ledger_acts.last(session) is not None:
        with suppress(InputError):  # its key is not trusted: another process seals it
            append(guard, session, signing.of_done(row))
    return row


def append(
    guard: "Guard", session: "Session", act: signing.Act, signer: "Signer | None" = None
) -> None:
    """Sign an act and append it to the chain.

    Args:
        signer: the guard's own where none is given.

    Raises:
        InputError: this process has no trusted signing key.
    """
    ledger_acts.append(
        session,
        act_id=act.act_id,
        kind=act.kind,
        subject=act.subject,
        envelope=dsse.sign(signing.act_statement(act), signer or guard.signer),
        at=act.at,
    )


def has_key(guard: "Guard") -> bool:
    """Whether this process can read a signing key; it never makes one."""
    return guard.settings.signing_key_file.exists()


def changed_policy(guard: "Guard", session: "Session") -> None:
    """Record that decisions follow another policy than those before, where they do."""
    policy = guard.policy
    last = next(
        (
            row
            for row in reversed(acts.of_kind(session, Act.CHANGE_POLICY))
            if row.facts.get("modality", Modality.IMAGES) == policy.modality
            and row.facts.get("project", "") == guard.project
        ),
        None,
    )
    if last is not None and last.subject == policy.digest:
        return
    before = last.subject if last is not None else ""
    detail = f"{policy.name} version {policy.version}" + (f" after {before}" if before else "")
    nobody = Principal(name=GUARD, role=None)
    facts = {"before": before}
    if guard.project:
        facts["project"] = guard.project
        detail = f"project {guard.project}: {detail}"
    if policy.modality is not Modality.IMAGES:
        facts["modality"] = str(policy.modality)
    note(guard, session, nobody, Act.CHANGE_POLICY, policy.digest, detail, facts)


def problems(guard: "Guard", session: "Session") -> Iterator[str]:
    """Every act that was changed or deleted, or that no seal was put on in time, as a sentence."""
    seals = acts.seals(session)
    late, after = guard.now() - SEAL_WITHIN, 0
    while rows := acts.walk(session, after, BATCH):
        after = rows[-1].seq
        for row in rows:
            seal = seals.pop(row.id, None)
            if seal is None and row.at < late:
                yield (
                    f"Act {row.id[:12]} ({row.act} by {row.principal}) has no seal in the ledger "
                    f"after more than {SEAL_WITHIN.seconds // 60} minutes."
                )
            elif seal is not None and seal != signing.of_done(row).subject:
                yield f"Act {row.id[:12]} was changed: it is not the one that the ledger sealed."
    for act_id in seals:
        yield f"Act {act_id[:12]} was deleted; the ledger holds its seal, with all that it held."
