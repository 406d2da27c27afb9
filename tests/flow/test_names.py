"""Nothing that is served is replaced by another than its owner, or by an older upload."""

import uuid
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.core.errors import InputError, NotServable, Unavailable
from guard.core.states import ScanState, Verdict
from guard.flow import names, publish, run_stage
from guard.flow.reconcile import reconcile_guard
from guard.flow.withdraw import withdraw
from guard.store import acts, alarms, scans
from guard.store.claims import NameTaken
from guard.store.session import StoreConflict, reading, transaction
from tests.flow.shop import BACKDOORED, Shop
from tests.flow.test_served_name import FAMILIES


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.mark.parametrize("keys", FAMILIES, ids=lambda keys: keys[0][:30])
def test_a_second_team_replaces_nothing_of_the_first(shop: Shop, keys: tuple[str, ...]) -> None:
    first, *others = keys
    shop.serve(first, 0, by="ann", at=1)
    (name,) = shop.answers

    for number, key in enumerate(others):
        shop.serve(key, 1, by="mallory", at=2 + number)

    assert shop.answers[name] == 0
    assert len(shop.answers) == len(keys)


@pytest.mark.parametrize("by", ["mallory", None])
def test_another_uploader_in_the_same_folder_is_refused(shop: Shop, by: str | None) -> None:
    shop.serve("models/fraud/m.pt", 0, by="ann")

    with pytest.raises(NameTaken, match=r"belongs to ann.*guard name transfer fraud"):
        shop.put("models/fraud/m.pt", 1, by=by)

    assert shop.answers == {"fraud": 0}


def test_where_two_prefixes_ask_for_one_name_the_first_has_it(shop: Shop) -> None:
    shop.serve("models/fraud/m.pt", 0, by="ann")

    for key in ("fraud/m.pt", "fraud.pt"):
        with pytest.raises(NameTaken, match="belongs to s3://models/models/fraud/"):
            shop.put(key, 1, by="ann")

    assert shop.answers == {"fraud": 0}


def test_a_scan_from_before_the_claims_publishes_nothing_under_the_name_of_another(
    shop: Shop,
) -> None:
    shop.serve("models/fraud/m.pt", 0, by="ann", at=1)
    old = shop.put("models/other/m.pt", 1, by="mallory", at=2)
    with transaction(shop.guard.engine) as session:
        scans.move(session, old, ScanState.DETECTING, shop.clock, name="fraud")

    shop.finish(old)

    assert shop.answers == {"fraud": 0}
    with reading(shop.guard.engine) as session:
        assert [row.kind for row in alarms.open_alarms(session)] == ["publish_refused"]


def test_an_older_upload_that_is_cleared_later_does_not_replace_a_newer(shop: Shop) -> None:
    old = shop.put("models/fraud/m.pt", 0, at=1)
    new = shop.put("models/fraud/m.pt", 1, at=2)
    shop.finish(new)
    shop.finish(old)

    assert shop.answers == {"fraud": 1}
    scan = shop.scan(old)
    assert scan.state is ScanState.DONE
    assert [row.verdict for row in shop.verdicts(old)] == [Verdict.CLEARED]
    assert "newer upload" in (scan.detail.not_published or "")
    with pytest.raises(NotServable, match="guard rollback"):
        publish.request(shop.guard, old, "operator")
    assert reconcile_guard(shop.guard) == []


def test_what_the_store_took_later_is_newer_though_the_guard_heard_of_it_first(
    shop: Shop,
) -> None:
    new = shop.put("models/fraud/m.pt", 1, at=2)
    old = shop.put("models/fraud/m.pt", 0, at=1)
    shop.finish(new)
    shop.finish(old)

    assert shop.answers == {"fraud": 1}


def test_old_bytes_that_the_owner_uploads_again_are_the_newest_upload(shop: Shop) -> None:
    shop.serve("models/fraud/m.pt", 0, at=1)
    late = shop.put("models/fraud/m.pt", 1, at=2)
    shop.serve("models/fraud/m.pt", 0, at=3)
    shop.finish(late)

    assert shop.answers == {"fraud": 0}


@pytest.mark.row(23)
@pytest.mark.threat("A24")
def test_a_purified_child_has_the_place_of_its_upload(shop: Shop) -> None:
    parent = shop.serve("models/fraud/m.pt", BACKDOORED, at=1)
    assert shop.answers == {}
    child = uuid.uuid4().hex

    def bear(child: str) -> None:
        with transaction(shop.guard.engine) as session:
            row = scans.get(session, parent)
            scans.insert(
                session,
                scan_id=child,
                bucket=row.bucket,
                key=row.key,
                version_id=row.version_id,
                name=row.name,
                now=shop.clock,
                upload_digest=shop.models[2],
                submitted_by=row.submitted_by,
                parent_scan_id=parent,
            )
            for state in (ScanState.INSPECTING, ScanState.DETECTING):
                scans.move(session, child, state, shop.clock, canonical_digest=shop.models[2])

    bear(child)
    shop.finish(child)
    assert shop.answers == {"fraud": 2}
    shop.serve("models/fraud/m.pt", 1, at=2)
    bear(late := uuid.uuid4().hex)
    shop.finish(late)

    assert shop.answers == {"fraud": 1}


def test_a_withdrawn_model_is_not_replaced_by_an_older_one_that_is_cleared_later(
    shop: Shop,
) -> None:
    old = shop.put("models/fraud/m.pt", 0, at=1)
    shop.serve("models/fraud/m.pt", 1, at=2)
    withdraw(shop.guard, "fraud", "stolen", "bob")
    shop.finish(old)
    assert shop.answers == {}

    names.rollback(shop.guard, "fraud", old, "the older one is good", "bob")
    run_stage.work(shop.guard, "publish", old)

    assert shop.answers == {"fraud": 0}


def test_a_rollback_stays_until_a_newer_upload_is_published(shop: Shop) -> None:
    first = shop.serve("models/fraud/m.pt", 0, at=1)
    second = shop.serve("models/fraud/m.pt", 1, at=2)

    assert names.rollback(shop.guard, "fraud", None, "accuracy fell", "bob").id == first
    run_stage.work(shop.guard, "publish", first)
    assert shop.answers == {"fraud": 0}
    with pytest.raises(NotServable, match="rolled back"):
        publish.request(shop.guard, second, "operator")
    assert reconcile_guard(shop.guard) == []

    shop.serve("models/fraud/m.pt", 2, at=3)
    assert shop.answers == {"fraud": 2}
    with pytest.raises(NotServable, match="newer upload"):
        publish.request(shop.guard, first, "operator")
    with reading(shop.guard.engine) as session:
        (act,) = acts.about(session, ["fraud"])
    assert (act.act, act.principal, act.detail) == ("rollback", "bob", "accuracy fell")


@pytest.mark.row(42)
@pytest.mark.threat("A20")
def test_a_rollback_goes_to_the_version_that_was_named_and_never_to_a_revoked_one(
    shop: Shop,
) -> None:
    scans_ = [shop.serve("models/fraud/m.pt", model, at=model) for model in range(3)]
    withdraw(shop.guard, shop.models[1], "stolen", "bob")

    with pytest.raises(NotServable, match="withdrawn"):
        names.rollback(shop.guard, "fraud", "2.0", "back", "bob")
    assert names.rollback(shop.guard, "fraud", "1.0", "back", "bob").id == scans_[0]


def test_a_ledger_that_cannot_be_read_is_not_taken_for_a_missing_version(shop: Shop) -> None:
    for model in range(2):
        shop.serve("models/fraud/m.pt", model, at=model)
    file = shop.guard.settings.checkpoint_dir / "checkpoints.jsonl"
    file.rename(file.with_suffix(".away"))
    file.mkdir()  # the volume is broken

    with pytest.raises(Unavailable, match="checkpoints"):
        names.rollback(shop.guard, "fraud", None, "accuracy fell", "bob")


def test_a_rollback_that_cannot_be_is_refused(shop: Shop) -> None:
    scan = shop.serve("models/fraud/m.pt", 0)
    other = shop.serve("models/digits/m.pt", 1)

    for name, to, reason, sentence in (
        ("fraud", None, " ", "needs a reason"),
        ("fraud", None, "x", "no earlier version"),
        ("fraud", scan, "x", "already"),
        ("fraud", other, "x", "not 'fraud'"),
        ("nobody", None, "x", "No upload claimed"),
    ):
        with pytest.raises(InputError, match=sentence):
            names.rollback(shop.guard, name, to, reason, "bob")


def test_a_transferred_name_serves_what_it_did_until_its_new_owner_uploads(shop: Shop) -> None:
    shop.serve("models/fraud/m.pt", 0, by="ann", at=1)
    pending = shop.put("models/fraud/m.pt", 1, by="ann", at=2)

    names.transfer(shop.guard, "fraud", "carl", None, "ann left", "bob")
    shop.finish(pending)
    assert shop.answers == {"fraud": 0}
    assert reconcile_guard(shop.guard) == []
    shop.serve("models/fraud/m.pt", 2, by="carl", at=3)

    assert shop.answers == {"fraud": 2}
    with reading(shop.guard.engine) as session:
        assert [(row.act, row.detail) for row in acts.about(session, ["fraud"])] == [
            ("transfer", "ann left")
        ]


def test_a_name_may_move_to_another_folder(shop: Shop) -> None:
    shop.serve("models/fraud/m.pt", 0, by="ann", at=1)
    names.transfer(shop.guard, "fraud", None, "team-b/fraud/", "team-b has it now", "bob")
    shop.serve("team-b/fraud/m.pt", 1, by="ann", at=2)

    assert shop.answers == {"fraud": 1}
    with pytest.raises(NameTaken):
        shop.put("models/fraud/m.pt", 2, by="ann")


def test_nobody_gives_a_name_to_themselves_or_without_a_reason(shop: Shop) -> None:
    shop.serve("models/fraud/m.pt", 0, by="ann")
    shop.serve("models/digits/m.pt", 1, by="bob")

    with pytest.raises(NotServable, match="themselves"):
        names.transfer(shop.guard, "fraud", "bob", None, "mine now", "bob")
    with pytest.raises(InputError, match="reason"):
        names.transfer(shop.guard, "fraud", "carl", None, "", "bob")
    with pytest.raises(InputError, match="already"):
        names.transfer(shop.guard, "fraud", "ann", None, "x", "bob")
    with pytest.raises(InputError, match="a folder has one name"):
        names.transfer(shop.guard, "fraud", None, "models/digits/", "x", "bob")


def test_what_was_done_to_a_name_cannot_be_changed(shop: Shop) -> None:
    shop.serve("models/fraud/m.pt", 0, by="ann")
    names.transfer(shop.guard, "fraud", "carl", None, "ann left", "bob")

    for statement in ("UPDATE acts SET detail = 'x'", "DELETE FROM acts"):
        with (
            pytest.raises(StoreConflict, match="append-only"),
            transaction(shop.guard.engine) as session,
        ):
            session.connection().exec_driver_sql(statement)


UPLOAD = st.tuples(st.sampled_from(["fraud", "digits"]), st.integers(0, 3))


@settings(max_examples=25, deadline=None)
@given(
    uploads=st.lists(UPLOAD, min_size=1, max_size=5),
    revoked=st.sets(st.integers(0, 2), max_size=1),
    chance=st.randoms(use_true_random=False),
)
def test_at_rest_a_name_serves_its_newest_upload_that_may_be_served(
    uploads: list[tuple[str, int]], revoked: set[int], chance: Random
) -> None:
    with TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        heard = list(enumerate(uploads))
        chance.shuffle(heard)
        todo: list[tuple[str, object]] = [
            ("finish", shop.put(f"models/{name}/m.pt", model, at=at)) for at, (name, model) in heard
        ]
        todo += [("revoke", model) for model in revoked]
        chance.shuffle(todo)
        for act, what in todo:
            if act == "finish":
                shop.finish(str(what))
            else:
                withdraw(shop.guard, shop.models[int(str(what))], "stolen", "bob")

        answers = shop.answers
        for name in {name for name, _ in uploads}:
            clean = [model for one, model in uploads if one == name and model != BACKDOORED]
            fit = [model for model in clean if model not in revoked]
            newest = clean[-1] if clean else None
            # Where the newest was withdrawn, nothing comes back without a rollback.
            wanted = {newest} if newest not in revoked else {None, fit[-1] if fit else None}
            assert answers.get(name) in wanted
        assert reconcile_guard(shop.guard) == []
        shop.guard.engine.dispose()
