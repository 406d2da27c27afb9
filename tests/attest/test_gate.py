"""The gate: one verdict, one digest, one name, one time; everything else is refused."""

import copy
import dataclasses
import pickle
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from guard.attest import dsse, gate
from guard.attest.keys import Signer, TrustedKeys
from guard.attest.statement import RELEASE_TYPE, VERDICT_TYPE, PolicyName
from guard.attest.views import VerdictView
from guard.core.errors import InputError, IntegrityMismatch, NotServable
from guard.core.plain import from_plain
from guard.core.purification import RepairSummary
from guard.core.states import SERVABLE_VERDICTS, GateMode, Verdict, WouldBe
from guard.core.verdict import Gated, VerdictFacts
from tests.attest.making import ASR, DIGEST, NOW, OTHER, Books, a_signer, a_statement, trusting

SECOND = timedelta(seconds=1)
GAPS = {"measured": False, "sentence": "How often this policy is right is unknown."}
REPAIR = {
    "defenses": ["sau"],
    "version": 2,
    "replayed": [],
    "unproved": ["No patch was recovered."],
}
REPAIR_FACTS = from_plain(RepairSummary, REPAIR)
LATER = (
    "natural_trigger",
    "asr_upper",
    "calibration",
    "not_covered",
    "known_gaps",
    "purification",
    "vetted_dtype",
    "plug_ins",
    "gate",
)  # fields that the first verdicts lack


def ask(signer: Signer, statement: dict[str, Any] | None = None, **fields: Any) -> gate.VerdictView:
    values: dict[str, Any] = {
        "trusted": trusting(signer),
        "digest": DIGEST,
        "now": NOW,
        "revoked": frozenset(),
    }
    return gate.servable(dsse.sign(statement or a_statement(), signer), **{**values, **fields})


def release(signer: Signer, **fields: Any) -> gate.Approved:
    values: dict[str, Any] = {
        "digest": DIGEST,
        "now": NOW,
        "revoked": (),
        "name": "m",
        "version": "1.0",
    }
    by = fields.pop("by", signer)
    return gate.approve(
        dsse.sign(a_statement(), signer), trusting(signer), **{**values, **fields}, signer=by
    )


def test_everything_that_was_signed_comes_back(signer: Signer) -> None:
    view = ask(
        signer,
        a_statement(
            verdict=Verdict.PURIFIED,
            parent=OTHER,
            asr_upper=0.97,
            calibration="c" * 64,
            known_gaps=GAPS,
            purification=REPAIR_FACTS,
        ),
    )

    assert view == VerdictView(
        digest=DIGEST,
        facts=VerdictFacts(
            verdict=Verdict.PURIFIED,
            reasons=("Cleared.",),
            score=0.25,
            target=3,
            asr=ASR,
            asr_upper=0.97,
            calibration="c" * 64,
            coverage=("patch",),
            known_gaps=GAPS,
            evidence=("f" * 64,),
            parent=OTHER,
            purification=REPAIR_FACTS,
        ),
        verdict_id="1" * 32,
        scan_id="2" * 32,
        name="m",
        policy=PolicyName(name="default", digest="a" * 64),
        not_covered=(
            "blend",
            "additive",
            "warp",
            "filter",
            "sample-specific",
            "all-to-all",
            "all-to-one",
        ),
        basis={"kind": "policy"},
        cleanset="b" * 64,
        issued_at=NOW,
        expires_at=NOW + timedelta(days=30),
    )


def test_a_verdict_from_before_these_words_is_still_read(signer: Signer) -> None:
    statement = a_statement(
        asr_upper=0.97, calibration="c" * 64, known_gaps=GAPS, purification=REPAIR_FACTS
    )
    for word in LATER:
        del statement["predicate"][word]
    view = ask(signer, statement)

    assert (
        view.facts.asr_upper,
        view.facts.calibration,
        view.not_covered,
        view.facts.known_gaps,
    ) == (
        None,
        None,
        (),
        None,
    )
    assert view.facts.purification is None


@pytest.mark.parametrize("word", REPAIR.keys() - {"version"})
def test_a_signed_repair_that_lacks_a_word_is_no_verdict(word: str, signer: Signer) -> None:
    cut = {key: value for key, value in REPAIR.items() if key != word}

    statement = a_statement(purification=REPAIR_FACTS)
    statement["predicate"]["purification"] = cut

    with pytest.raises(IntegrityMismatch):
        ask(signer, statement)


@pytest.mark.threat("B02")
def test_known_gaps_cannot_be_taken_out_of_a_signed_verdict(signer: Signer) -> None:
    envelope, bare = (dsse.sign(a_statement(known_gaps=gaps), signer) for gaps in (GAPS, None))
    forged = {**envelope, "payload": bare["payload"]}

    assert ask(signer, a_statement(known_gaps=GAPS)).facts.known_gaps == GAPS
    with pytest.raises(IntegrityMismatch):
        gate.servable(forged, trusting(signer), digest=DIGEST, now=NOW, revoked=())


@pytest.mark.row(40)
@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_cleared_and_purified_are_servable(signer: Signer, verdict: Verdict) -> None:
    statement = a_statement(verdict=verdict)
    if verdict in SERVABLE_VERDICTS:
        assert ask(signer, statement).verdict is verdict
    else:
        with pytest.raises(NotServable, match=str(verdict)):
            ask(signer, statement)

    assert {str(verdict) for verdict in SERVABLE_VERDICTS} == {"cleared", "purified"}


@pytest.mark.row(4)
@pytest.mark.threat("A16")
def test_a_verdict_on_one_digest_says_nothing_of_another(signer: Signer) -> None:
    for digest in (OTHER, "", DIGEST.upper(), DIGEST[:12]):
        with pytest.raises(IntegrityMismatch) as refusal:
            ask(signer, digest=digest)

        assert refusal.value.code == "other_subject"


def test_a_stranger_clears_nothing(signer: Signer, tmp_path: Path) -> None:
    with pytest.raises(IntegrityMismatch) as refusal:
        ask(signer, trusted=trusting(a_signer(tmp_path)))
    assert refusal.value.code == "bad_signature"
    with pytest.raises(IntegrityMismatch):
        ask(signer, trusted=TrustedKeys({}))


@pytest.mark.threat("A16", "C21")
@pytest.mark.parametrize(
    ("now", "allowed"),
    [
        (NOW, True),
        (NOW + timedelta(days=30) - SECOND, True),
        (NOW + timedelta(days=30), False),
        (NOW + timedelta(days=31), False),
        (NOW - gate.MAX_SKEW, True),
        (NOW - gate.MAX_SKEW - SECOND, False),
        ((NOW + timedelta(days=30)).astimezone(timezone(timedelta(hours=9))), False),
    ],
)
def test_a_verdict_holds_from_its_issue_until_just_before_its_expiry(
    signer: Signer, now: datetime, allowed: bool
) -> None:
    if allowed:
        assert ask(signer, now=now).issued_at == NOW
        return
    with pytest.raises(NotServable):
        ask(signer, now=now)


@pytest.mark.threat("C21")
def test_a_time_without_a_zone_is_no_time_to_judge_at(signer: Signer) -> None:
    with pytest.raises(InputError, match="timezone"):
        ask(signer, now=NOW.replace(tzinfo=None))


def test_a_revoked_digest_is_not_servable_however_good_its_verdict(signer: Signer) -> None:
    with pytest.raises(NotServable, match="withdrawn"):
        ask(signer, revoked={DIGEST})
    assert ask(signer, revoked={OTHER}).digest == DIGEST


def test_the_ledgers_row_must_say_the_same(signer: Signer) -> None:
    """A14: flipping a column by SQL must not help, nor must it go unnoticed."""
    row = Books(signer).add().rows[0]
    values: dict[str, Any] = {"digest": DIGEST, "now": NOW, "revoked": ()}
    assert (
        gate.servable(row.envelope, trusting(signer), **values, ledger_row=row).verdict_id == row.id
    )
    changes: dict[str, Any] = {
        "id": "9" * 32,
        "artifact_digest": OTHER,
        "scan_id": "9" * 32,
        "verdict": Verdict.REJECTED,
        "policy_digest": "9" * 64,
        "issued_at": NOW - SECOND,
        "expires_at": NOW + timedelta(days=99),
        "envelope": dsse.sign(a_statement(), signer),
    }
    for name, value in changes.items():
        with pytest.raises(IntegrityMismatch) as refusal:
            gate.servable(
                row.envelope,
                trusting(signer),
                **values,
                ledger_row=dataclasses.replace(row, **{name: value}),
            )

        assert refusal.value.code == "ledger_mismatch"


@pytest.mark.threat("A14")
def test_a_row_flipped_to_cleared_does_not_clear(signer: Signer) -> None:
    row = dataclasses.replace(
        Books(signer).add(verdict=Verdict.REJECTED).rows[0], verdict=Verdict.CLEARED
    )
    for given in (row, None):
        with pytest.raises((IntegrityMismatch, NotServable)):
            gate.servable(
                row.envelope, trusting(signer), digest=DIGEST, now=NOW, revoked=(), ledger_row=given
            )


@pytest.mark.threat("C25")
@pytest.mark.parametrize(
    "path",
    [
        ("_type",),
        ("predicateType",),
        ("subject",),
        ("predicate",),
        *[("predicate", word) for word in a_statement()["predicate"]],
    ],
)
def test_a_statement_without_one_of_its_words_is_none(
    signer: Signer, path: tuple[str, ...]
) -> None:
    wrongs: tuple[Any, ...] = ("absent", [], {}, True)
    for wrong in wrongs:
        statement = copy.deepcopy(a_statement())
        place = statement if len(path) == 1 else statement[path[0]]
        if wrong == [] and path[-1] in ("coverage", "reasons", "evidence", "not_covered"):
            continue  # an empty list is a list
        if wrong == {} and path[-1] == "plug_ins":
            continue  # and no plug-in is a mapping without an entry
        if wrong == "absent" and path[-1] in LATER:
            continue  # verdicts signed before these words existed lack them
        place[path[-1]] = wrong
        if wrong == "absent":
            del place[path[-1]]
        with pytest.raises(IntegrityMismatch):
            ask(signer, statement)


def test_a_statement_about_two_things_is_about_none(signer: Signer) -> None:
    statement = a_statement()
    statement["subject"].append({"name": "m", "digest": {"sha256": OTHER}})
    for digest in (DIGEST, OTHER):
        with pytest.raises(IntegrityMismatch):
            ask(signer, statement, digest=digest)


def test_a_review_must_name_its_reviewer_reason_and_verdict(signer: Signer) -> None:
    basis = {"kind": "review", "reviewer": "bob", "reason": "seen", "reviewed_verdict": "3" * 32}

    assert ask(signer, a_statement(basis=basis)).basis == basis
    for missing in ("reviewer", "reason", "reviewed_verdict"):
        with pytest.raises(IntegrityMismatch):
            ask(signer, a_statement(basis={**basis, missing: ""}))
    with pytest.raises(IntegrityMismatch):
        ask(signer, a_statement(basis={"kind": "friendship"}))


def test_an_approval_carries_a_release_that_the_serving_host_accepts(signer: Signer) -> None:
    approved = release(signer)
    view = gate.check_release(
        approved.release_envelope, trusting(signer), digest=DIGEST, name="m", version="1.0", now=NOW
    )

    assert (approved.digest, approved.name, approved.version) == (DIGEST, "m", "1.0")
    assert approved.expires_at == view.expires_at == NOW + timedelta(days=30)
    assert (view.verdict_id, view.verdict, view.policy_digest) == (
        "1" * 32,
        Verdict.CLEARED,
        "a" * 64,
    )


def test_an_approval_is_for_the_name_that_was_vetted(signer: Signer) -> None:
    """A24.

    The original must not be published by an alias of the purified, nor the other way round.
    """
    with pytest.raises(NotServable, match="'other'"):
        release(signer, name="other")


def test_what_is_not_servable_cannot_be_approved(signer: Signer) -> None:
    for fields in ({"revoked": (DIGEST,)}, {"now": NOW + timedelta(days=30)}):
        with pytest.raises(NotServable):
            release(signer, **fields)
    with pytest.raises(IntegrityMismatch):
        release(signer, digest=OTHER)


def test_a_release_signed_by_a_key_nobody_trusts_is_not_even_made(
    signer: Signer, tmp_path: Path
) -> None:
    with pytest.raises(IntegrityMismatch):
        release(signer, by=a_signer(tmp_path))


def test_an_approval_cannot_be_made_or_altered_elsewhere(signer: Signer) -> None:
    approved = release(signer)
    with pytest.raises(NotServable):
        gate.Approved(DIGEST, "m", "1.0", approved.release_envelope, NOW)
    with pytest.raises(NotServable):
        gate.Approved(DIGEST, "m", "1.0", approved.release_envelope, NOW, object())
    changes: tuple[dict[str, Any], ...] = ({"name": "other"}, {"digest": OTHER}, {})
    for change in changes:
        with pytest.raises((NotServable, ValueError)):
            dataclasses.replace(approved, **change)
    with pytest.raises(dataclasses.FrozenInstanceError):
        approved.name = "other"  # type: ignore[misc]


@pytest.mark.threat("A16")
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"digest": OTHER}, "other_subject"),
        ({"name": "n"}, "other_release"),
        ({"version": "2.0"}, "other_release"),
        ({"now": NOW + timedelta(days=30)}, "release_expired"),
        ({"now": NOW - timedelta(days=1)}, "release_expired"),
    ],
)
def test_a_release_is_for_these_bytes_this_name_this_version_and_now(
    signer: Signer, fields: dict[str, Any], code: str
) -> None:
    asked: dict[str, Any] = {"digest": DIGEST, "name": "m", "version": "1.0", "now": NOW, **fields}
    with pytest.raises((IntegrityMismatch, NotServable)) as refusal:
        gate.check_release(release(signer).release_envelope, trusting(signer), **asked)

    assert refusal.value.code == code


def test_a_verdict_is_no_release_and_a_release_no_verdict(signer: Signer) -> None:
    with pytest.raises(IntegrityMismatch) as refusal:
        gate.check_release(
            dsse.sign(a_statement(), signer),
            trusting(signer),
            digest=DIGEST,
            name="m",
            version="1.0",
            now=NOW,
        )
    assert refusal.value.code == "other_kind"
    with pytest.raises(IntegrityMismatch):
        gate.servable(
            release(signer).release_envelope, trusting(signer), digest=DIGEST, now=NOW, revoked=()
        )
    assert VERDICT_TYPE != RELEASE_TYPE


def test_a_signed_release_of_a_rejected_model_is_refused_all_the_same(signer: Signer) -> None:
    statement = dsse.payload(release(signer).release_envelope)
    statement["predicate"]["verdict"] = "rejected"
    with pytest.raises(IntegrityMismatch):
        gate.check_release(
            dsse.sign(statement, signer),
            trusting(signer),
            digest=DIGEST,
            name="m",
            version="1.0",
            now=NOW,
        )


def test_an_approval_does_not_hold_the_private_key(signer: Signer) -> None:
    assert b"PRIVATE" not in pickle.dumps(release(signer))


def warned(would_be: WouldBe) -> Gated:
    return Gated(mode=GateMode.WARN, would_be=would_be)


LET_THROUGH = [
    (Verdict.REJECTED, WouldBe.REJECTED),
    (Verdict.HELD, WouldBe.HELD),
    (Verdict.INCONCLUSIVE, WouldBe.INCONCLUSIVE),
    (Verdict.CLEARED, WouldBe.EXPIRED),
]


@pytest.mark.parametrize(("verdict", "would_be"), LET_THROUGH)
def test_a_gate_that_only_warns_lets_through_what_was_signed_so_and_the_release_says_it(
    signer: Signer, verdict: Verdict, would_be: WouldBe
) -> None:
    statement = a_statement(verdict=verdict, gate=warned(would_be))
    envelope = dsse.sign(statement, signer)

    approved = gate.approve(
        envelope,
        trusting(signer),
        digest=DIGEST,
        now=NOW,
        revoked=(),
        name="m",
        version="1.0",
        signer=signer,
        mode=GateMode.WARN,
    )

    assert approved.gate == warned(would_be)
    with pytest.raises(NotServable):
        ask(signer, statement)
    with pytest.raises(NotServable, match="withdrawn"):
        ask(signer, statement, mode=GateMode.WARN, revoked=(DIGEST,))
    with pytest.raises(NotServable, match="expired"):
        ask(signer, statement, mode=GateMode.WARN, now=NOW + timedelta(days=30))


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.HELD, Verdict.UNVETTABLE])
@pytest.mark.parametrize(
    "signed",
    [
        None,
        warned(WouldBe.PUBLISHED),
        Gated(mode=GateMode.ENFORCE, would_be=WouldBe.REJECTED),
    ],
)
def test_a_gate_that_only_warns_lets_nothing_through_that_does_not_say_so(
    signer: Signer, verdict: Verdict, signed: Gated | None
) -> None:
    with pytest.raises(NotServable, match=str(verdict)):
        ask(signer, a_statement(verdict=verdict, gate=signed), mode=GateMode.WARN)


def test_no_mode_lets_an_unvettable_file_through(signer: Signer) -> None:
    for would_be in WouldBe:
        statement = a_statement(verdict=Verdict.UNVETTABLE, gate=warned(would_be))
        with pytest.raises(NotServable, match="unvettable"):
            ask(signer, statement, mode=GateMode.WARN)


@pytest.mark.parametrize(
    ("verdict", "said", "passes"),
    [
        ("rejected", {"mode": "warn", "would_be": "rejected"}, True),
        ("cleared", {"mode": "warn", "would_be": "published"}, True),
        ("cleared", {"mode": "warn", "would_be": "expired"}, True),
        ("rejected", None, False),
        ("rejected", {"mode": "enforce", "would_be": "rejected"}, False),
        ("rejected", {"mode": "warn", "would_be": "published"}, False),
        ("unvettable", {"mode": "warn", "would_be": "rejected"}, False),
        ("rejected", {"mode": "warn"}, False),
        ("rejected", {"mode": "off", "would_be": "rejected"}, False),
        ("rejected", "warn", False),
    ],
)
def test_the_serving_host_takes_the_permission_from_the_release_alone(
    signer: Signer, verdict: str, said: object, *, passes: bool
) -> None:
    statement = dsse.payload(release(signer).release_envelope)
    statement["predicate"] |= {"verdict": verdict} | ({} if said is None else {"gate": said})
    envelope = dsse.sign(statement, signer)

    def check() -> gate.ReleaseView:
        return gate.check_release(
            envelope, trusting(signer), digest=DIGEST, name="m", version="1.0", now=NOW
        )

    if passes:
        assert check().gate is not None
        return
    with pytest.raises(IntegrityMismatch) as refusal:
        check()
    assert refusal.value.code == "bad_statement"


def test_an_enforcing_gate_signs_releases_as_it_ever_did(signer: Signer) -> None:
    statement = a_statement(gate=warned(WouldBe.PUBLISHED))
    envelope = dsse.sign(statement, signer)
    said = {"name": "m", "version": "1.0", "digest": DIGEST, "now": NOW, "revoked": ()}
    enforced, warning = (
        gate.approve(envelope, trusting(signer), **said, signer=signer, mode=mode)  # type: ignore[arg-type]
        for mode in GateMode
    )

    assert "gate" not in dsse.payload(enforced.release_envelope)["predicate"]
    assert dsse.payload(warning.release_envelope)["predicate"]["gate"] == {
        "mode": "warn",
        "would_be": "published",
    }
    assert a_statement()["predicate"]["gate"] is None
