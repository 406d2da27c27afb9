"""The gate: the only code that decides whether an artifact may be served.

It reads signed statements, never rows. The checks, in order; the first that fails is the answer:
    1 a trusted key signed the statement         4 the verdict is one that permits serving
    2 it is a verdict about exactly this digest  5 it is in force now: issued, not expired
    3 the ledger's row, if given, agrees with it 6 nobody revoked the digest

Where the policy only warns, a verdict that was signed in that mode passes 4 whatever it is, and the
release that is signed says so. Nothing else lets a model through: a statement without the field was
made by an enforcing gate.
"""

from collections.abc import Collection, Mapping
from dataclasses import InitVar, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from guard.attest import dsse
from guard.attest.chain import LedgerLike, differences
from guard.attest.keys import Signer, TrustedKeys
from guard.attest.statement import release_statement
from guard.attest.views import ReleaseView, VerdictView, read_release, read_verdict
from guard.core.contracts import ServedForm
from guard.core.errors import InputError, IntegrityMismatch, NotServable
from guard.core.states import SERVABLE_VERDICTS, GateMode, Verdict, WouldBe
from guard.core.verdict import Gated

__all__ = ["Approved", "ReleaseView", "VerdictView", "approve", "check_release", "servable"]

#: How far ahead of ours the clock of the signing host may run; an expiry gets no such grace.
MAX_SKEW = timedelta(seconds=60)
_MADE_HERE = object()


@dataclass(frozen=True)
class Approved:
    """An artifact that may be published; only `approve` makes one."""

    digest: str
    name: str
    version: str
    release_envelope: Mapping[str, Any]
    expires_at: datetime
    gate: Gated | None = field(default=None, kw_only=True)
    # Not a field, so that `dataclasses.replace` cannot carry the proof over to another name or
    # digest.
    proof: InitVar[object] = None

    def __post_init__(self, proof: object) -> None:
        if proof is not _MADE_HERE:
            raise NotServable("Approved is made by guard.attest.gate.approve and by nothing else.")


def servable(
    envelope: Mapping[str, Any],
    trusted: TrustedKeys,
    *,
    digest: str,
    now: datetime,
    revoked: Collection[str],
    mode: GateMode = GateMode.ENFORCE,
    ledger_row: LedgerLike | None = None,
) -> VerdictView:
    """Check that the artifact `digest` may be served now, and return its signed verdict.

    Args:
        revoked: digests that must not be served any more.
        mode: that of the policy in force. What was signed as let through passes only where it
            still warns.
        ledger_row: the row the envelope came from, to notice that its columns were changed.

    Raises:
        IntegrityMismatch: the signature, the subject or the row is wrong: somebody changed
            something.
        NotServable: the statement is genuine and does not permit serving.
    """
    _check_clock(now)
    view = read_verdict(dsse.verify(envelope, trusted))
    _check_subject(view.digest, digest)
    if ledger_row is not None:
        _check_row(ledger_row, view, envelope)
    if not (_passes(view) or (mode is GateMode.WARN and _let_through(view.verdict, view.gate))):
        raise NotServable(_refusal(view))
    if not view.issued_at <= now + MAX_SKEW:
        raise NotServable(f"The verdict on {digest[:12]} is dated in the future; check the clocks.")
    if not now < view.expires_at:
        raise NotServable(f"The verdict on {digest[:12]} has expired; scan it again.")
    if digest in revoked:
        raise NotServable(f"The artifact {digest[:12]} was withdrawn and is not served again.")
    return view


def approve(
    envelope: Mapping[str, Any],
    trusted: TrustedKeys,
    *,
    digest: str,
    now: datetime,
    revoked: Collection[str],
    name: str,
    version: str,
    signer: Signer,
    mode: GateMode = GateMode.ENFORCE,
    ledger_row: LedgerLike | None = None,
    served: ServedForm | None = None,
) -> Approved:
    """Pass the gate and sign the release of `digest` as `name` `version`.

    Where `mode` is that of a policy that only warns, the release says so. `served` is what the
    publisher made from the artifact, to serve that.

    Raises:
        IntegrityMismatch, NotServable: as `servable`; also when the verdict is about another name,
            or when `signer`'s key is not trusted.
    """
    view = servable(
        envelope,
        trusted,
        digest=digest,
        now=now,
        revoked=revoked,
        mode=mode,
        ledger_row=ledger_row,
    )
    if view.name != name:
        raise NotServable(
            f"The verdict is about {view.name!r}; it does not clear a model named {name!r}."
        )
    release = dsse.sign(
        release_statement(
            digest=digest,
            name=name,
            version=version,
            verdict_id=view.verdict_id,
            verdict=view.verdict,
            policy_digest=view.policy_digest,
            issued_at=now,
            expires_at=view.expires_at,
            gate=None if mode is GateMode.ENFORCE else view.gate,
            served=served,
        ),
        signer,
    )
    # The serving host will make the same check: a release that it would refuse is better refused
    # here.
    made = check_release(release, trusted, digest=digest, name=name, version=version, now=now)
    return Approved(digest, name, version, release, view.expires_at, _MADE_HERE, gate=made.gate)


def check_release(
    envelope: Mapping[str, Any],
    trusted: TrustedKeys,
    *,
    digest: str,
    name: str,
    version: str,
    now: datetime,
) -> ReleaseView:
    """Check a release as the serving host does before it reads a weight, and return it.

    Raises:
        IntegrityMismatch: no trusted key signed it, or it is about other bytes, another name or
            version.
        NotServable: it is not in force now.
    """
    _check_clock(now)
    view = read_release(dsse.verify(envelope, trusted))
    _check_subject(view.digest, digest)
    if (view.name, view.version) != (name, version):
        raise IntegrityMismatch(
            f"The release is of {view.name} {view.version}, not {name} {version}.",
            code="other_release",
        )
    if not _says_why(view):
        raise IntegrityMismatch(
            f"The release is of a model that is {view.verdict}, and does not say that the gate "
            "only warned.",
            code="bad_statement",
        )
    if not (view.issued_at <= now + MAX_SKEW and now < view.expires_at):
        raise NotServable(
            f"The release of {name} {version} is not in force; it expires at "
            f"{view.expires_at.isoformat()}.",
            code="release_expired",
        )
    return view


def _passes(view: VerdictView) -> bool:
    """Whether an enforcing gate lets it pass; the extension of a warning gate does not."""
    expired = view.gate is not None and view.gate.would_be is WouldBe.EXPIRED
    return view.verdict in SERVABLE_VERDICTS and not expired


def _let_through(verdict: Verdict, gate: Gated | None) -> bool:
    return gate is not None and gate.let_through and verdict is not Verdict.UNVETTABLE


def _says_why(view: ReleaseView) -> bool:
    """Whether a release is of a model that passed, or says that the gate only warned."""
    return view.verdict in SERVABLE_VERDICTS or _let_through(view.verdict, view.gate)


def _refusal(view: VerdictView) -> str:
    if view.verdict in SERVABLE_VERDICTS:
        return (
            f"The verdict on {view.digest[:12]} had expired and was only extended by a gate that "
            "warned; scan the model again."
        )
    return (
        f"The verdict on {view.digest[:12]} is {view.verdict}; only cleared or purified models are "
        "served."
    )


def _check_subject(signed: str, wanted: str) -> None:
    if signed != wanted:
        raise IntegrityMismatch("The signed statement is about other bytes.", code="other_subject")


def _check_row(row: LedgerLike, view: VerdictView, envelope: Mapping[str, Any]) -> None:
    wrong = differences(row, view)
    if "verdict" in wrong:
        raise IntegrityMismatch(
            f"The ledger's row holds {str(row.verdict)!r} where the signed statement holds "
            f"{str(view.verdict)!r}; the database was changed.",
            code="ledger_mismatch",
        )
    if wrong or dict(row.envelope) != dict(envelope):
        raise IntegrityMismatch(
            "The ledger's row differs from the signed statement in "
            f"{', '.join(wrong) or 'envelope'}; the database was changed.",
            code="ledger_mismatch",
        )


def _check_clock(now: datetime) -> None:
    if now.tzinfo is None:
        raise InputError(
            "The time of the check has no timezone; pass datetime.now(UTC).", code="naive_time"
        )
