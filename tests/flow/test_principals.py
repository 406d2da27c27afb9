"""Who may act is decided in the use cases: tokens, roles, four eyes, and what is signed of it."""

import hmac
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from guard.core.digests import sha256
from guard.core.errors import InputError, NotServable
from guard.core.roles import Act, Role
from guard.core.states import ScanState, Verdict
from guard.core.verdict import VerdictFacts
from guard.flow import review, tokens
from guard.flow._verdict import Terms, write
from guard.flow.principals import Forbidden, Principal, Unauthorised, authenticate, permit
from guard.flow.signed import signed
from guard.flow.withdraw import withdraw
from guard.store import acts, artifacts, ledger, principals, scans
from guard.store.rows import ArtifactKind
from guard.store.session import reading, transaction
from tests import people
from tests.flow.place import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def held(place: Place, *, by: str | None = None) -> str:
    """A scan with a held verdict in force."""
    scan_id = place.upload(b"weights", manifest=None, by=by)
    guard = place.guard
    digest = sha256(b"weights")
    with transaction(guard.engine) as session:
        artifacts.put(session, digest=digest, size=7, kind=ArtifactKind.CANONICAL, now=guard.now())
        scan = scans.move(session, scan_id, ScanState.QUEUED, guard.now(), canonical_digest=digest)
        facts = VerdictFacts(verdict=Verdict.HELD, reasons=("Unusual.",), score=0.5)
        write(guard, session, scan, digest, facts, Terms())
    return scan_id


def basis(place: Place, verdict_id: str) -> dict[str, Any]:
    with reading(place.guard.engine) as session:
        view = signed(ledger.get(session, verdict_id).envelope)
    return {**view.basis, "reason_shown": view.facts.reasons[-1]}


def test_a_login_is_marked_unauthenticated_in_the_signed_statement(place: Place) -> None:
    found = basis(place, review.approve(place.guard, held(place), "bob", "seen"))

    assert (found["reviewer"], found["unauthenticated"]) == ("bob", True)
    assert found["uploaders"] == []
    assert found["reason_shown"] == "Approved by bob (unauthenticated, uploader unknown): seen"


def test_a_principal_is_named_without_a_doubt(place: Place) -> None:
    bob = people.who(place.guard, "bob", Role.REVIEWER)
    people.give(place.guard, "ann", Role.UPLOADER, prefixes=["models/models/model"])
    found = basis(place, review.approve(place.guard, held(place), bob, "seen"))

    assert "unauthenticated" not in found
    assert found["uploaders"] == ["ann"]
    assert found["reason_shown"] == "Approved by bob: seen"
    with reading(place.guard.engine) as session:
        row = acts.list_recent(session)[0]
    assert (row.act, row.principal, row.role, row.token_id) == (
        "approve",
        "bob",
        "reviewer",
        bob.token_id,
    )


def test_an_unknown_uploader_is_recorded_beside_the_approval(place: Place) -> None:
    bob = people.who(place.guard, "bob", Role.REVIEWER)
    found = basis(place, review.approve(place.guard, held(place), bob, "seen"))

    assert found["uploaders"] == []
    assert found["reason_shown"] == "Approved by bob (uploader unknown): seen"


@pytest.mark.row(34)
@pytest.mark.threat("A13")
def test_the_owner_of_the_prefix_is_refused_as_a_reviewer_and_may_reject(place: Place) -> None:
    ann = people.who(place.guard, "ann", Role.REVIEWER, prefixes=["models/models/model"])
    scan_id = held(place)
    with pytest.raises(NotServable, match="cannot approve"):
        review.approve(place.guard, scan_id, ann, "trust me")

    assert basis(place, review.reject(place.guard, scan_id, ann, "mine, broken"))


def test_once_a_principal_exists_no_login_acts(place: Place) -> None:
    people.give(place.guard, "ann", Role.VIEWER)
    for act in (review.approve, review.reject):
        with pytest.raises(Unauthorised, match="GUARD_TOKEN"):
            act(place.guard, held(place), "bob", "seen")
    with pytest.raises(Unauthorised, match="GUARD_TOKEN"):
        withdraw(place.guard, "d" * 64, "stolen", "bob")


def test_a_token_that_is_revoked_after_it_was_shown_does_not_act(place: Place) -> None:
    bob = people.who(place.guard, "bob", Role.REVIEWER)
    tokens.revoke(place.guard, people.who(place.guard, "ops", Role.OPERATOR), bob.token_id)

    with pytest.raises(Unauthorised, match="revoked"):
        review.approve(place.guard, held(place), bob, "seen")


def test_a_token_that_expires_after_it_was_shown_does_not_act(place: Place) -> None:
    bob = people.who(place.guard, "bob", Role.REVIEWER)
    scan_id = held(place)
    place.clock += timedelta(days=31)

    with pytest.raises(Unauthorised, match="expired"):
        review.approve(place.guard, scan_id, bob, "seen")


def test_a_role_that_a_token_does_not_have_cannot_be_claimed(place: Place) -> None:
    bob = people.who(place.guard, "bob", Role.VIEWER)

    with pytest.raises(Forbidden, match="needs reviewer"):
        review.approve(place.guard, held(place), bob, "seen")
    with pytest.raises(Unauthorised):
        review.approve(place.guard, held(place), replace(bob, role=Role.REVIEWER), "seen")
    made_up = Principal(name="carol", role=Role.REVIEWER, token_id="0" * 16)
    with pytest.raises(Unauthorised):
        review.approve(place.guard, held(place), made_up, "seen")


def test_a_token_has_256_random_bits_and_only_its_hash_is_stored(place: Place) -> None:
    texts = {people.give(place.guard, "bob", Role.VIEWER) for _number in range(3)}
    with reading(place.guard.engine) as session:
        rows = {row.id: row for row in principals.list_tokens(session)}

    assert len({text.rpartition("_")[2] for text in texts}) == 3
    for text in texts:
        _, token_id, secret = text.split("_", 2)
        assert len(secret) == 43  # 256 bits in base64
        assert rows[token_id].hash == sha256(secret.encode())
        assert secret not in repr(rows)


def test_tokens_are_compared_in_constant_time_known_or_not(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = people.give(place.guard, "bob", Role.VIEWER)
    compared: list[int] = []
    real = hmac.compare_digest

    def watched(one: Any, other: Any) -> bool:
        compared.append(len(other))
        return real(one, other)

    monkeypatch.setattr("guard.flow.principals.hmac.compare_digest", watched)
    authenticate(place.guard, token)
    for wrong in (f"guard_{'0' * 16}_{'A' * 43}", "nonsense", "", "é", token[:-1] + "\x00"):
        with pytest.raises(Unauthorised):
            authenticate(place.guard, wrong)

    # The webhook token, then the stored hash or a stand-in for it, each time.
    assert compared == [0, 64] * 6


def test_the_time_of_last_use_is_kept_and_not_written_at_each_call(place: Place) -> None:
    token = people.give(place.guard, "bob", Role.VIEWER)

    def used() -> Any:
        with reading(place.guard.engine) as session:
            rows = principals.list_tokens(session)
        return next(row.last_used_at for row in rows if row.principal == "bob")

    assert used() is None
    authenticate(place.guard, token)
    first = used()
    place.clock += timedelta(seconds=30)
    authenticate(place.guard, token)
    assert used() == first
    place.clock += timedelta(seconds=60)
    authenticate(place.guard, token)
    assert used() == first + timedelta(seconds=90)


@pytest.mark.parametrize("name", ["api", "unknown", "unauthenticated", "Ann", "a b", "", "ann\n"])
def test_names_that_could_pass_for_another_are_refused(name: str, place: Place) -> None:
    root = people.who(place.guard, "ops", Role.OPERATOR)
    with pytest.raises(InputError) as refusal:
        tokens.create(place.guard, root, name, Role.VIEWER, days=1)

    assert refusal.value.code == "bad_principal"


def test_of_several_tokens_an_act_is_done_with_the_one_whose_role_may(place: Place) -> None:
    guard = place.guard
    rows = [people.who(guard, "ann", role) for role in (Role.VIEWER, Role.REVIEWER, Role.OPERATOR)]
    ann = Principal.of("ann", [one for row in rows for one in row.credentials])

    with reading(guard.engine) as session:
        done = {act: permit(guard, session, ann, act) for act in (Act.APPROVE, Act.RESCAN)}
        assert {act: who.role for act, who in done.items()} == {
            Act.APPROVE: Role.REVIEWER,
            Act.RESCAN: Role.OPERATOR,
        }
        assert done[Act.APPROVE].token_id == rows[1].token_id
        both = Principal.of("ann", [*rows[0].credentials, *rows[1].credentials])
        with pytest.raises(Forbidden, match="role reviewer and viewer; publish needs operator"):
            permit(guard, session, both, Act.PUBLISH)

    tokens.revoke(guard, rows[2], rows[1].token_id)
    with reading(guard.engine) as session, pytest.raises(Unauthorised):
        permit(guard, session, ann, Act.APPROVE)
