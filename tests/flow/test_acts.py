"""What principals do is signed into the ledger's chain, and `guard verify` misses no change."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from guard.attest import acts as signing
from guard.attest import dsse
from guard.core.digests import json_digest
from guard.core.errors import IntegrityMismatch
from guard.core.roles import Act, Role
from guard.flow import _acts, keys, names, publish, review, run_stage, tokens
from guard.flow._seal import tend
from guard.flow._standing import standing
from guard.flow.accept import accept
from guard.flow.principals import Forbidden, Unauthorised
from guard.flow.submit import submit
from guard.flow.verify import verify
from guard.flow.withdraw import withdraw
from guard.store import acts, alarms, ledger_acts, nominations
from guard.store._table import Base
from guard.store.rows import ActRow
from guard.store.session import StoreConflict, reading, transaction
from tests import people
from tests.flow.place import finding
from tests.flow.shop import Shop


class Scene(Shop):
    """A service with an open ledger: one served model, an operator and a reviewer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.first = self.serve("models/fraud/m.pt", 0, at=1)
        self.ops = people.who(self.guard, "ops", Role.OPERATOR)
        self.rita = people.who(self.guard, "rita", Role.REVIEWER)

    def held(self) -> str:
        scan_id = self.put("models/odd/m.pt", 1)
        self.with_evidence(scan_id, finding(suspicious=True, natural=0.95))
        run_stage.work(self.guard, "decide", scan_id)
        return scan_id

    def rows(self, *kinds: Act) -> list[ActRow]:
        with reading(self.guard.engine) as session:
            return [row for kind in kinds or Act for row in acts.of_kind(session, kind)]

    def chained(self) -> dict[str, signing.Act]:
        """What was signed of each act, by its id."""
        with reading(self.guard.engine) as session:
            rows = ledger_acts.rows(session)
        read = [signing.read_act(dsse.verify(row.envelope, self.guard.trusted)) for row in rows]
        return {act.act_id: act for act in read if act.kind == "act"}

    def sql(self, *statements: str) -> None:
        """Change the database as somebody with all rights on it."""
        with closing(sqlite3.connect(self.folder / "data" / "guard.db")) as connection:
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def without_key(self) -> None:
        """From now on this process has no signing key, as the API has none."""
        key = self.guard.settings.signing_key_file
        key.rename(key.with_name("away.pem"))
        self.guard = replace(self.guard)  # forgets the key that it has read

    def with_key(self) -> None:
        key = self.guard.settings.signing_key_file
        key.with_name("away.pem").rename(key)
        self.guard = replace(self.guard)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.guard.engine.dispose()


def approve_held(scene: Scene) -> None:
    review.approve(scene.guard, scene.held(), scene.rita, "natural here")


def reject(scene: Scene) -> None:
    review.reject(scene.guard, scene.held(), scene.rita, "no")


def ask_to_publish(scene: Scene) -> None:
    guard = scene.guard
    scene.guard = replace(guard, settings=replace(guard.settings, auto_publish=False))
    publish.request(scene.guard, scene.serve("models/other/m.pt", 1), scene.ops)


def take_down(scene: Scene) -> None:
    withdraw(scene.guard, "fraud", "it broke", scene.ops)


def roll_back(scene: Scene) -> None:
    scene.serve("models/fraud/m.pt", 1, at=2)
    names.rollback(scene.guard, "fraud", scene.first, "the new one is slow", scene.ops)


def transfer(scene: Scene) -> None:
    names.transfer(scene.guard, "fraud", "dora", None, "ann left", scene.ops)


def give_token(scene: Scene) -> None:
    people.give(scene.guard, "uma", Role.UPLOADER, prefixes=["models/uma"])


def revoke_token(scene: Scene) -> None:
    tokens.revoke(scene.guard, scene.ops, "rita")


def disown(scene: Scene) -> None:
    give_token(scene)
    tokens.disown(scene.guard, scene.ops, "uma", "models/uma")


def submitted(scene: Scene) -> None:
    submit(scene.guard, scene.ops, "models", "models/new/m.safetensors", "v7")


DOINGS: dict[Act, tuple[str, Callable[[Scene], None]]] = {
    Act.APPROVE: ("rita", approve_held),
    Act.REJECT: ("rita", reject),
    Act.PUBLISH: ("ops", ask_to_publish),
    Act.WITHDRAW: ("ops", take_down),
    Act.ROLLBACK: ("ops", roll_back),
    Act.TRANSFER: ("ops", transfer),
    Act.GIVE_TOKEN: ("root", give_token),
    Act.REVOKE_TOKEN: ("ops", revoke_token),
    Act.REMOVE_OWNER: ("ops", disown),
    Act.SUBMIT: ("ops", submitted),
}


@pytest.mark.row(32)
@pytest.mark.parametrize("kind", DOINGS)
def test_every_act_is_signed_into_the_chain_with_its_principal(scene: Scene, kind: Act) -> None:
    who, do = DOINGS[kind]

    do(scene)

    row = scene.rows(kind)[-1]
    sealed = scene.chained()[row.id]
    assert (row.principal, row.authenticated) == (who, True)
    assert sealed.entry is not None
    assert (sealed.by, sealed.entry["principal"], sealed.entry["act"]) == (who, who, str(kind))
    assert sealed.subject == json_digest(dict(sealed.entry))
    found = standing(scene.guard, whole=True)
    assert (found.unsealed, found.broken) == ((), ())
    assert found.newest is not None
    assert found.newest.heads == found.heads, "the checkpoint covers the act"
    assert verify(scene.guard) == []


@pytest.mark.parametrize("kind", sorted(set(Act) - set(DOINGS)))
def test_the_other_acts_are_the_ones_that_other_tests_do(kind: Act) -> None:
    """Reading leaves no row; acts about the ledger are of its own kinds, and have their tests.

    `tests/cli/test_every_command.py` does the others by their commands, and
    `tests/api/test_sessions.py` signs in and out.
    """
    assert kind in {
        Act.READ,
        Act.ADD_HOOK,
        Act.REMOVE_HOOK,
        Act.TEST_HOOK,
        Act.QUARANTINE,  # tests/flow/test_quarantine.py
        Act.RESTORE_DATABASE,  # tests/flow/test_backup.py
        Act.TRUST_MODEL_KEY,  # these two: tests/flow/test_model_keys.py
        Act.DISTRUST_MODEL_KEY,
        Act.ATTEST,
        Act.SYNC_MLFLOW,
        Act.CHANGE_POLICY,
        Act.CREATE_PROJECT,
        Act.CHANGE_PROJECT,
        Act.ADD_MEMBER,
        Act.REMOVE_MEMBER,
        Act.SIGN_IN,
        Act.SIGN_OUT,
        Act.WAIVE,
        Act.APPROVE_WAIVER,
        Act.REVOKE_WAIVER,
        Act.CHANGE_KEYS,
        Act.ACCEPT_LEDGER,
        Act.RESCAN,
        Act.SIFT,
        Act.RETRAIN,
        Act.CANCEL_JOB,
        Act.ADD_CLEANSET,
        Act.ADD_TRAINSET,
        Act.UPGRADE_DATABASE,
        Act.ACKNOWLEDGE,
        Act.RETRY,
    }


def test_an_act_without_the_key_is_signed_by_the_process_that_has_it(scene: Scene) -> None:
    scene.without_key()
    transfer(scene)
    submitted(scene)
    assert [row.act for row in standing(scene.guard).unsealed] == [Act.TRANSFER, Act.SUBMIT]
    assert verify(scene.guard) == [], "it is not late yet"
    with reading(scene.guard.engine) as session:
        assert alarms.open_alarms(session) == []

    scene.with_key()
    tend(scene.guard)

    assert standing(scene.guard).unsealed == ()
    assert {row.id for row in scene.rows(Act.TRANSFER, Act.SUBMIT)} <= set(scene.chained())
    assert verify(scene.guard) == []


def test_an_act_that_stays_without_a_seal_is_reported(scene: Scene) -> None:
    scene.without_key()
    transfer(scene)
    scene.clock += _acts.SEAL_WITHIN
    assert verify(scene.guard) == []
    scene.clock += timedelta(seconds=1)

    (problem,) = verify(scene.guard)
    assert "transfer by ops" in problem
    assert "no seal" in problem
    scene.with_key()
    tend(scene.guard)
    assert verify(scene.guard) == []


def test_an_act_that_was_changed_is_reported(scene: Scene) -> None:
    transfer(scene)
    (row,) = scene.rows(Act.TRANSFER)
    for change in (
        "principal = 'mallory'",
        "detail = 'as agreed'",
        "subject = 'digits'",
        "act = 'rollback'",
        "authenticated = 0",
        "facts = '{}'",
        "at = '2020-01-01 00:00:00.000000'",
    ):
        scene.sql(f"UPDATE acts SET {change} WHERE id = '{row.id}'")

        assert verify(scene.guard) == [
            f"Act {row.id[:12]} was changed: it is not the one that the ledger sealed."
        ]


@pytest.mark.row(36)
@pytest.mark.threat("C22")
def test_an_act_that_was_deleted_is_reported_and_the_ledger_still_holds_it(scene: Scene) -> None:
    transfer(scene)
    (row,) = scene.rows(Act.TRANSFER)
    scene.sql(f"DELETE FROM acts WHERE id = '{row.id}'")

    (problem,) = verify(scene.guard)
    assert problem.startswith(f"Act {row.id[:12]} was deleted")
    entry = scene.chained()[row.id].entry
    assert entry is not None
    assert (entry["principal"], entry["detail"]) == ("ops", "ann left")


def test_a_seal_that_was_cut_off_or_taken_out_stops_publishing(scene: Scene) -> None:
    transfer(scene)
    give_token(scene)
    (row,) = scene.rows(Act.TRANSFER)
    with reading(scene.guard.engine) as session:
        last = ledger_acts.last(session)
    assert last is not None
    where = f"id = '{row.id}'"
    scene.sql(f"DELETE FROM ledger_acts WHERE {where}")
    found = standing(scene.guard)
    assert "Ledger acts are missing." in found.broken[0]
    with pytest.raises(IntegrityMismatch):
        found.check()
    assert any("Ledger act" in problem for problem in verify(scene.guard))

    scene.sql(f"DELETE FROM ledger_acts WHERE seq = {last.seq}")
    assert any("acts end at" in problem for problem in standing(scene.guard).broken)


def test_a_seal_that_was_rewritten_is_found_by_whoever_publishes(scene: Scene) -> None:
    transfer(scene)
    give_token(scene)
    (row,) = scene.rows(Act.TRANSFER)
    scene.sql(f"UPDATE ledger_acts SET subject = '{'0' * 64}' WHERE id = '{row.id}'")

    assert any("was changed" in problem for problem in standing(scene.guard, whole=True).broken)
    assert any("differs from what was signed" in problem for problem in verify(scene.guard))


def test_a_signed_act_about_another_entry_is_no_act(scene: Scene) -> None:
    transfer(scene)
    (row,) = scene.rows(Act.TRANSFER)
    act = scene.chained()[row.id]
    for forged in (replace(act, entry=None), replace(act, entry={**(act.entry or {}), "by": "x"})):
        with pytest.raises(IntegrityMismatch):
            signing.read_act(signing.act_statement(forged))


def test_an_act_that_is_undone_leaves_neither_row_nor_seal(scene: Scene) -> None:
    before = len(scene.rows()), len(scene.chained())

    def undone() -> None:
        with transaction(scene.guard.engine) as session:
            _acts.note(scene.guard, session, scene.ops, Act.PUBLISH, "x", "y")
            session.connection().exec_driver_sql("DELETE FROM acts")

    with pytest.raises(StoreConflict):
        undone()
    assert (len(scene.rows()), len(scene.chained())) == before


def test_a_process_without_a_key_makes_none_for_an_act(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    key = shop.guard.settings.signing_key_file
    key.unlink()
    shop.guard.settings.trusted_keys_file.unlink()
    shop.guard = replace(shop.guard)
    people.give(shop.guard, "ann", Role.UPLOADER)
    submit(shop.guard, people.who(shop.guard, "ops", Role.OPERATOR), "models", "a/m.safetensors")

    assert not key.exists()
    assert len(standing(shop.guard).unsealed) == 4
    tend(shop.guard)  # the process that publishes and signs
    assert key.exists()
    assert standing(shop.guard).unsealed == ()
    assert verify(shop.guard) == []
    shop.guard.engine.dispose()


def test_acts_before_the_first_verdict_come_behind_the_first_checkpoint(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    people.give(shop.guard, "ann", Role.UPLOADER)

    found = standing(shop.guard, whole=True)
    assert [row.kind for row in found.acts] == ["open"]
    assert (found.broken, found.unsealed, found.heads.acts.seq) == ((), (), 3)
    shop.guard.engine.dispose()


def test_an_untrusted_key_leaves_acts_to_another_process(scene: Scene) -> None:
    scene.without_key()
    keys.make_key(scene.guard.settings.signing_key_file)
    transfer(scene)

    assert [row.act for row in standing(scene.guard).unsealed] == [Act.TRANSFER]


@pytest.mark.row(26)
def test_a_changed_policy_is_recorded_once_by_the_process_that_decides(scene: Scene) -> None:
    (first,) = scene.rows(Act.CHANGE_POLICY)
    assert (first.subject, first.principal) == (scene.guard.policy.digest, "guard")
    scene.serve("models/second/m.pt", 1)
    assert len(scene.rows(Act.CHANGE_POLICY)) == 1

    scene.guard = replace(scene.guard, policy=replace(scene.guard.policy, version=99))
    scene.serve("models/third/m.pt", 2)

    _, second = scene.rows(Act.CHANGE_POLICY)
    assert second.subject == scene.guard.policy.digest
    assert second.facts == {"before": first.subject}
    assert second.id in scene.chained()


def test_names_are_changed_by_operators_only(scene: Scene) -> None:
    for who, error in ((scene.rita, Forbidden), ("bob", Unauthorised)):
        with pytest.raises(error):
            names.transfer(scene.guard, "fraud", "dora", None, "x", who)
        with pytest.raises(error):
            names.rollback(scene.guard, "fraud", None, "x", who)
    assert scene.rows(Act.TRANSFER, Act.ROLLBACK) == []


def test_a_submission_is_recorded_with_its_nomination_or_not_at_all(scene: Scene) -> None:
    new = submit(scene.guard, scene.ops, "models", "models/new/m.safetensors", "v7")
    uma = people.who(scene.guard, "uma", Role.UPLOADER, prefixes=["models/uma"])
    with pytest.raises(Forbidden):
        submit(scene.guard, uma, "models", "models/new/m.safetensors", "v8")

    (row,) = scene.rows(Act.SUBMIT)
    assert (row.subject, row.detail) == ("s3://models/models/new/m.safetensors", "version v7")
    assert row.facts == {"nomination": new}
    with reading(scene.guard.engine) as session:
        assert [found.id for found in nominations.list_recent(session)] == [new]


def test_keys_and_the_ledger_are_for_operators_and_signers(scene: Scene) -> None:
    sig = people.who(scene.guard, "sig", Role.SIGNER)
    key = str(scene.guard.settings.signing_key_file)
    for who, error in ((scene.rita, Forbidden), ("bob", Unauthorised)):
        with pytest.raises(error):
            keys.trust(scene.guard, key, "x", who)
        with pytest.raises(error):
            keys.distrust(scene.guard, scene.guard.signer.key_id, "x", who)
        with pytest.raises(error):
            accept(scene.guard, "x", who)
    keys.trust(scene.guard, key, "again", sig)
    assert accept(scene.guard, "as it is", scene.ops) == []

    with reading(scene.guard.engine) as session:
        last = ledger_acts.own(session)[-1]
    act = signing.read_act(dsse.payload(last.envelope))
    assert (act.kind, act.by) == ("trust", "sig")


def test_a_login_that_changes_keys_is_marked(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    keys.trust(shop.guard, str(shop.guard.settings.signing_key_file), "again", "bob")
    with reading(shop.guard.engine) as session:
        act = signing.read_act(dsse.payload(ledger_acts.own(session)[-1].envelope))
    assert act.by == "bob (unauthenticated)"
    shop.guard.engine.dispose()


def test_the_name_of_each_act_fits_its_column() -> None:
    """PostgreSQL refuses a longer one, and SQLite does not."""
    column: Any = Base.metadata.tables["acts"].c.act.type

    assert {str(act) for act in Act if len(act) > column.impl.length} == set()
