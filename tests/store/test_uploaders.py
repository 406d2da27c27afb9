"""Four eyes in the database: owners of prefixes, parents, the same bytes; append-only tables."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from guard.core.roles import Act, Role
from guard.core.states import Verdict
from guard.store import acts, principals, reviews, scans, uploaders
from guard.store.rows import Decided
from guard.store.session import StoreConflict, reading, transaction
from tests.store.rows import NOW, a_digest, a_scan, a_verdict, an_artifact

APPROVE = text(
    "INSERT INTO reviews (id, verdict_id, reviewer, decision, reason, at) "
    "VALUES ('x', :verdict, :reviewer, 'approve', 'r', '2026-11-21 00:00:00')"
)


def own(s: Any, name: str, prefix: str) -> None:
    principals.put(s, name, NOW)
    uploaders.add_owner(s, bucket="intake", prefix=prefix, principal=name, now=NOW)


def upload(s: Any, key: str, digest: str | None = None, **fields: Any) -> Any:
    """A scan as intake records it."""
    scan = a_scan(s, key=key, upload_digest=digest or a_digest(), **fields)
    uploaders.record(s, scan.id, uploaders.owners_of(s, "intake", key))
    return scan


def held(s: Any, scan: Any) -> str:
    digest = an_artifact(s)
    scans.move(s, scan.id, scan.state, NOW, canonical_digest=digest)
    return a_verdict(s, scan, digest, Verdict.HELD).id


def refused(engine: Engine, verdict: str, reviewer: str) -> None:
    """Refused by the store, and by the database where somebody goes past it."""
    with transaction(engine) as s, pytest.raises(reviews.OwnUpload):
        reviews.add(
            s,
            review_id="x",
            verdict_id=verdict,
            reviewer=reviewer,
            decision=Decided.APPROVE,
            reason="r",
            now=NOW,
        )
    with pytest.raises(StoreConflict, match="uploader may not approve"), transaction(engine) as s:
        s.execute(APPROVE, {"verdict": verdict, "reviewer": reviewer})


def allowed(engine: Engine, verdict: str, reviewer: str) -> None:
    with transaction(engine) as s:
        s.execute(APPROVE, {"verdict": verdict, "reviewer": reviewer})


def test_the_owner_of_the_prefix_may_not_approve(engine: Engine) -> None:
    with transaction(engine) as s:
        own(s, "ann", "m/ann/")
        own(s, "bob", "m/annabel/")
        verdict = held(s, upload(s, "m/ann/x.pt"))

    refused(engine, verdict, "ann")
    allowed(engine, verdict, "bob")


def test_every_owner_of_a_shared_prefix_may_have_uploaded(engine: Engine) -> None:
    with transaction(engine) as s:
        own(s, "ann", "m/")
        own(s, "bob", "m/team/")
        verdict = held(s, upload(s, "m/team/x.pt"))

    refused(engine, verdict, "ann")
    refused(engine, verdict, "bob")


def test_who_owned_the_key_at_the_upload_stays_its_uploader(engine: Engine) -> None:
    with transaction(engine) as s:
        own(s, "ann", "m/")
        verdict = held(s, upload(s, "m/x.pt"))
        assert uploaders.remove_owner(s, bucket="intake", prefix="m/", principal="ann", now=NOW)
        later = held(s, upload(s, "m/y.pt"))

    refused(engine, verdict, "ann")
    allowed(engine, later, "ann")


def test_who_owns_the_key_now_may_not_approve_what_came_before(engine: Engine) -> None:
    with transaction(engine) as s:
        verdict = held(s, upload(s, "m/x.pt"))
        own(s, "ann", "m/")

    refused(engine, verdict, "ann")


def test_the_uploader_of_the_parent_may_not_approve_a_child_or_a_rescan(engine: Engine) -> None:
    with transaction(engine) as s:
        own(s, "ann", "m/")
        parent = upload(s, "m/x.pt")
        assert uploaders.remove_owner(s, bucket="intake", prefix="m/", principal="ann", now=NOW)
        child = a_scan(s, key="m/x.pt", parent_scan_id=parent.id)
        again = held(s, a_scan(s, key="m/x.pt", parent_scan_id=child.id))

    refused(engine, again, "ann")
    allowed(engine, again, "bob")


def test_the_same_bytes_under_another_key_are_the_same_upload(engine: Engine) -> None:
    digest = a_digest()
    with transaction(engine) as s:
        own(s, "ann", "m/ann/")
        upload(s, "m/ann/x.pt", digest)
        copy = upload(s, "free/x.pt", digest)
        verdict = held(s, copy)
        child = held(s, a_scan(s, key="free/x.pt", parent_scan_id=copy.id))

    refused(engine, verdict, "ann")
    refused(engine, child, "ann")


def test_an_upload_of_what_a_childs_canonical_file_holds_has_the_childs_uploader(
    engine: Engine,
) -> None:
    with transaction(engine) as s:
        own(s, "ann", "m/ann/")
        child = a_scan(s, key="m/ann/x.pt", parent_scan_id=upload(s, "m/ann/x.pt").id)
        held(s, child)
        digest = scans.get(s, child.id).canonical_digest
        verdict = held(s, upload(s, "free/y.pt", digest))

    refused(engine, verdict, "ann")
    allowed(engine, verdict, "bob")


def test_a_key_that_no_prefix_covers_was_uploaded_by_nobody_known(engine: Engine) -> None:
    with transaction(engine) as s:
        own(s, "ann", "m/")
        scan = upload(s, "M/x.pt")

        assert uploaders.of_scan(s, scan.id) == frozenset()
        assert uploaders.owners_of(s, "other", "m/x.pt") == frozenset()
        assert uploaders.owners_of(s, "intake", "m/x.pt") == {"ann"}


def test_an_owner_is_recorded_once(engine: Engine) -> None:
    with transaction(engine) as s:
        own(s, "ann", "m/")
        own(s, "ann", "m/")

        assert [row.principal for row in uploaders.list_owners(s)] == ["ann"]


@pytest.mark.parametrize("table", ["principals", "uploaders", "acts"])
@pytest.mark.parametrize("verb", ["UPDATE {} SET {} = 'eve'", "DELETE FROM {} -- {}"])
def test_what_was_done_and_by_whom_cannot_be_changed(table: str, verb: str, engine: Engine) -> None:
    with transaction(engine) as s:
        own(s, "ann", "m/")
        upload(s, "m/x.pt")
        acts.add(
            s,
            act=Act.WITHDRAW,
            principal="ann",
            role="operator",
            authenticated=True,
            token_id="t",
            subject="d",
            detail="",
            facts={},
            now=NOW,
        )
    column = "name" if table == "principals" else "principal"

    with pytest.raises(StoreConflict, match="append-only"), transaction(engine) as s:
        s.execute(text(verb.format(table, column)))
    with reading(engine) as s:
        assert [row.principal for row in acts.list_recent(s)] == ["ann"]


ACT = text(
    "INSERT INTO acts (id, act, principal, role, authenticated, token_id, subject, detail, facts, "
    "at) VALUES (:id, :act, :who, 'reviewer', :yes, 't', :subject, 'r', '{}', "
    "'2026-11-21 00:00:00')"
)


def act(s: Any, number: str, kind: Act, who: str, subject: str) -> None:
    """An act by somebody who goes past the use cases."""
    s.execute(ACT, {"id": number, "act": kind, "who": who, "yes": True, "subject": subject})


@pytest.fixture
def waivable(engine: Engine) -> str:
    """An artifact of ann's, repaired from dora's, whose bytes carl has under another key."""
    with transaction(engine) as s:
        for name, prefix in (("ann", "m/ann/"), ("dora", "m/dora/"), ("carl", "m/carl/")):
            own(s, name, prefix)
        digest = an_artifact(s)
        parent = upload(s, "m/dora/x.pt")
        child = upload(s, "m/ann/x.pt", parent_scan_id=parent.id, submitted_by="eve")
        scans.move(s, child.id, child.state, NOW, canonical_digest=digest)
        upload(s, "m/carl/x.pt", digest)
        act(s, "asked", Act.WAIVE, "bob", digest)
    return digest


@pytest.mark.parametrize("who", ["ann", "carl", "dora", "eve"])
@pytest.mark.parametrize("kind", [Act.WAIVE, Act.APPROVE_WAIVER])
def test_the_database_lets_no_uploader_waive(
    engine: Engine, waivable: str, who: str, kind: Act
) -> None:
    subject = waivable if kind is Act.WAIVE else "asked"
    with (
        pytest.raises(StoreConflict, match="a waiver needs two people"),
        transaction(engine) as s,
    ):
        act(s, "x", kind, who, subject)


@pytest.mark.parametrize(("who", "subject"), [("bob", "asked"), ("zoe", "nothing"), ("zoe", "x")])
def test_the_database_lets_nobody_agree_alone_or_to_nothing(
    engine: Engine, waivable: str, who: str, subject: str
) -> None:
    with (
        pytest.raises(StoreConflict, match="a waiver needs two people"),
        transaction(engine) as s,
    ):
        act(s, "x", Act.APPROVE_WAIVER, who, subject)
    with transaction(engine) as s:
        act(s, "y", Act.APPROVE_WAIVER, "zoe", "asked")
        act(s, "z", Act.WITHDRAW, "ann", waivable)


def test_a_token_is_revoked_by_its_id_or_with_all_of_its_principal(engine: Engine) -> None:
    with transaction(engine) as s:
        principals.lock(s)
        principals.put(s, "ann", NOW)
        for number in "123":
            principals.add_token(
                s,
                token_id=number,
                principal="ann",
                role=Role.VIEWER,
                secret_hash=a_digest(),
                now=NOW + timedelta(seconds=int(number)),
                expires_at=NOW + timedelta(days=1),
            )

        assert [row.id for row in principals.revoke(s, "2", NOW)] == ["2"]
        assert [row.id for row in principals.revoke(s, "ann", NOW)] == ["1", "3"]
        assert principals.revoke(s, "ann", NOW) == []
        assert all(row.revoked_at == NOW for row in principals.list_tokens(s))
