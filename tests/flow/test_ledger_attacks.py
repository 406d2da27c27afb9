"""Every way to change ledger, checkpoints or keys behind the guard's back is seen.

And whatever is done, nothing that was revoked is published again.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from guard.attest.keys import Signer, TrustedKeys
from guard.bootstrap import open_guard
from guard.core.errors import InputError, IntegrityMismatch, NotServable, Unavailable
from guard.core.states import ScanState, Verdict
from guard.flow import keys, publish, run_stage
from guard.flow._checkpoints import FILE
from guard.flow._seal import seal
from guard.flow._standing import standing
from guard.flow._verdict import Terms, write
from guard.flow.accept import accept
from guard.flow.reconcile import reconcile_guard
from guard.flow.signed import signed
from guard.flow.verify import verify
from guard.flow.withdraw import withdraw
from guard.store import alarms, ledger, ledger_acts, scans
from guard.store.session import reading, transaction
from tests.flow.place import Place, finding

if TYPE_CHECKING:
    from guard.events.bucket import Bucket
    from guard.flow.context import Guard


class Scene(Place):
    """A model that was published and withdrawn, and one that is served."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.database = folder / "data" / "guard.db"
        self.checkpoints = folder / "data" / "checkpoints" / FILE
        self.trusted = folder / "data" / "keys" / "trusted.json"
        self.bad = self.publish("bad", 1)
        self.before = folder / "before"  # a copy of everything from before the withdrawal
        self.before.mkdir()
        self.copy_database(self.before / "guard.db")
        shutil.copy(self.checkpoints, self.before / FILE)
        withdraw(self.guard, "bad", "a backdoor was found", "bob")
        self.good = self.publish("good", 2)

    def publish(self, name: str, seed: int) -> str:
        """Vet, clear and publish a model; returns its scan's id."""
        scan_id = self.upload(name=name, seed=seed)
        assert run_stage.work(self.guard, "inspect", scan_id)
        self.with_evidence(scan_id, finding(suspicious=False))
        assert run_stage.work(self.guard, "decide", scan_id)
        run_stage.work(self.guard, "publish", scan_id)
        return scan_id

    def copy_database(self, to: Path) -> None:
        with closing(sqlite3.connect(self.database)) as here, closing(sqlite3.connect(to)) as there:
            here.backup(there)

    def restore_database(self) -> None:
        """Put the older copy in the database's place."""
        self.guard.engine.dispose()
        for path in self.database.parent.glob("guard.db*"):
            path.unlink()
        shutil.copy(self.before / "guard.db", self.database)

    def sql(self, *statements: str) -> None:
        """Change the database as somebody with all rights on it."""
        with closing(sqlite3.connect(self.database)) as connection:
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    @property
    def revoked(self) -> str:
        return str(self.scan(self.bad).canonical_digest)

    @property
    def answering(self) -> list[str]:
        return [one.name for one in self.guard.publisher.state()]

    @property
    def alarms(self) -> dict[str, str]:
        with reading(self.guard.engine) as session:
            return {row.kind: row.detail for row in alarms.open_alarms(session)}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    Scene(folder).guard.engine.dispose()
    return folder


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Iterator[Scene]:
    """A copy of the scene, which was played once."""
    shutil.copytree(template, tmp_path, symlinks=True, dirs_exist_ok=True)
    made = Scene.__new__(Scene)
    Place.__init__(made, tmp_path)
    made.database, made.before = tmp_path / "data" / "guard.db", tmp_path / "before"
    made.checkpoints = tmp_path / "data" / "checkpoints" / FILE
    made.trusted = tmp_path / "data" / "keys" / "trusted.json"
    with reading(made.guard.engine) as session:
        found = {row.name: row.id for row in scans.list_recent(session, 10)}
    made.bad, made.good = found["bad"], found["good"]
    yield made
    made.guard.engine.dispose()


def newest_of(scene: Scene, table: str) -> str:
    return f"DELETE FROM {table} WHERE seq = (SELECT max(seq) FROM {table})"


def cut_the_last_verdict(scene: Scene) -> None:
    scene.sql("PRAGMA foreign_keys=OFF", newest_of(scene, "verdicts"))


def delete_a_verdict_within(scene: Scene) -> None:
    scene.sql("DELETE FROM verdicts WHERE seq = 1")


def cut_the_last_act(scene: Scene) -> None:
    scene.sql(newest_of(scene, "ledger_acts"), "DELETE FROM revocations")


def delete_all_acts_and_notes(scene: Scene) -> None:
    scene.sql("DELETE FROM ledger_acts", "DELETE FROM revocations", "DELETE FROM checkpoint_notes")


def restore_an_older_database(scene: Scene) -> None:
    scene.restore_database()


def rewrite_a_revocation(scene: Scene) -> None:
    scene.sql(
        f"UPDATE ledger_acts SET subject = '{'0' * 64}' WHERE kind = 'revocation'",
        "DELETE FROM revocations",
    )


def flip_a_byte_of_a_verdict(scene: Scene) -> None:
    scene.sql("UPDATE verdicts SET envelope = replace(envelope, 'a', 'b') WHERE seq = 2")


def put_an_older_checkpoint_in_its_place(scene: Scene) -> None:
    shutil.copy(scene.before / FILE, scene.checkpoints)


def delete_the_checkpoints(scene: Scene) -> None:
    scene.checkpoints.unlink()


def delete_checkpoints_and_their_notes(scene: Scene) -> None:
    scene.checkpoints.unlink()
    scene.sql("DELETE FROM checkpoint_notes")


def flip_a_byte_of_the_newest_checkpoint(scene: Scene) -> None:
    flip(scene.checkpoints, -100)


def flip_a_byte_of_an_older_checkpoint(scene: Scene) -> None:
    flip(scene.checkpoints, 100)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] = ord("x") if data[at] != ord("x") else ord("y")
    path.write_bytes(bytes(data))


ATTACKS: dict[Callable[[Scene], None], str] = {
    cut_the_last_verdict: "rolled back, cut or replaced",
    delete_a_verdict_within: "missing",
    cut_the_last_act: "rolled back, cut or replaced",
    delete_all_acts_and_notes: "rolled back, cut or replaced",
    restore_an_older_database: "rolled back, cut or replaced",
    rewrite_a_revocation: "changed",
    flip_a_byte_of_a_verdict: "changed",
    put_an_older_checkpoint_in_its_place: "replaced by older ones",
    delete_the_checkpoints: "deleted or replaced",
    delete_checkpoints_and_their_notes: "no checkpoint of this ledger any more",
    flip_a_byte_of_the_newest_checkpoint: "checkpoint",
    flip_a_byte_of_an_older_checkpoint: "checkpoint",
}


def test_an_untouched_guard_has_no_problem(scene: Scene) -> None:
    assert verify(scene.guard) == []
    assert reconcile_guard(scene.guard) == []
    assert scene.answering == ["good"]
    assert scene.alarms == {}


@pytest.mark.row(36)
@pytest.mark.threat("A14")
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: str(attack.__name__))
def test_an_attack_is_seen_and_stops_publishing(
    scene: Scene, attack: Callable[[Scene], None]
) -> None:
    scans_before = (scene.bad, scene.good)
    attack(scene)

    assert any(ATTACKS[attack] in problem for problem in verify(scene.guard))
    for scan_id in scans_before[: 1 if attack is restore_an_older_database else 2]:
        with pytest.raises(IntegrityMismatch) as refusal:
            publish.request(scene.guard, scan_id, "operator")
        assert refusal.value.code == "ledger_broken"
    reconcile_guard(scene.guard)
    assert "bad" not in scene.answering


@pytest.mark.parametrize(
    "attack",
    [attack for attack in ATTACKS if attack is not flip_a_byte_of_a_verdict],
    ids=lambda attack: str(attack.__name__),
)
def test_reconcile_raises_an_alarm_and_keeps_it_until_the_ledger_is_right(
    scene: Scene, attack: Callable[[Scene], None]
) -> None:
    attack(scene)
    seal(scene.guard)
    reconcile_guard(scene.guard)

    assert ATTACKS[attack] in scene.alarms["ledger_broken"]
    assert "guard ledger accept" in scene.alarms["ledger_broken"]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: str(attack.__name__))
def test_what_was_revoked_stays_so_after_the_ledger_was_accepted(
    scene: Scene, attack: Callable[[Scene], None]
) -> None:
    revoked = scene.revoked
    attack(scene)

    named = accept(scene.guard, "checked by hand", "carol")

    assert any(ATTACKS[attack] in sentence for sentence in named)
    found = standing(scene.guard)
    assert (found.broken, found.missing) == ((), ())
    assert scene.alarms == {}
    assert revoked in found.revoked
    with pytest.raises(InputError if attack is delete_a_verdict_within else NotServable):
        publish.request(scene.guard, scene.bad, "operator")
    assert accept(scene.guard, "once more", "carol") == []


def test_deleting_the_row_of_a_revocation_revives_nothing_and_is_reported(scene: Scene) -> None:
    scene.sql("DELETE FROM revocations")

    with pytest.raises(NotServable, match="withdrawn"):
        publish.request(scene.guard, scene.bad, "operator")
    assert [p for p in verify(scene.guard) if "revocation" in p] == [
        f"The revocation of {scene.revoked[:12]} was deleted from the database; it stays revoked."
    ]
    reconcile_guard(scene.guard)
    assert scene.revoked[:12] in scene.alarms["revocation_missing"]
    assert scene.answering == ["good"]  # nothing else has to stop for it

    accept(scene.guard, "put back", "carol")
    reconcile_guard(scene.guard)
    assert verify(scene.guard) == []
    assert scene.alarms == {}


def test_a_verdict_cut_behind_the_newest_rejection_revives_no_older_clearing(scene: Scene) -> None:
    """The sibling of a deleted revocation: the row that ended a clearing is gone."""
    with transaction(scene.guard.engine) as session:
        scan = scans.get(session, scene.good)
        row = ledger.get(session, str(scan.verdict_id))
        facts = signed(row.envelope).facts.reviewed(Verdict.REJECTED, "Found later.")
        write(scene.guard, session, scan, row.artifact_digest, facts, Terms())
    seal(scene.guard)
    scene.publish("third", 3)
    scene.sql(
        f"UPDATE scans SET verdict_id = '{row.id}' WHERE id = '{scene.good}'",
        f"UPDATE verdicts SET artifact_digest = '{scene.revoked}' WHERE verdict = 'rejected'",
    )

    with pytest.raises(IntegrityMismatch, match="changed"):
        publish.request(scene.guard, scene.good, "operator")


def test_a_publish_stage_under_way_is_refused_too(scene: Scene) -> None:
    scan_id = scene.upload(name="late", seed=4)
    run_stage.work(scene.guard, "inspect", scan_id)
    scene.with_evidence(scan_id, finding(suspicious=False))
    run_stage.work(scene.guard, "decide", scan_id)
    delete_all_acts_and_notes(scene)

    run_stage.work(scene.guard, "publish", scan_id)

    assert scene.scan(scan_id).state is ScanState.FAILED
    assert "late" not in scene.answering
    assert "publish_refused" in scene.alarms


def test_a_crash_between_commit_and_checkpoint_is_no_alarm(scene: Scene) -> None:
    with transaction(scene.guard.engine) as session:
        scan = scans.get(session, scene.good)
        row = ledger.get(session, str(scan.verdict_id))
        facts = signed(row.envelope).facts
        write(scene.guard, session, scan, row.artifact_digest, facts, Terms())
    behind = standing(scene.guard)
    assert behind.newest is not None
    assert behind.newest.heads.verdicts.seq < behind.heads.verdicts.seq  # killed here

    assert verify(scene.guard) == []
    publish.request(scene.guard, scene.good, "operator")
    assert [one for one in reconcile_guard(scene.guard) if one.name != "good"] == []
    assert scene.alarms == {}
    after = standing(scene.guard)
    assert after.newest is not None
    assert after.newest.heads == after.heads  # reconcile has caught up


def test_a_crash_while_a_checkpoint_is_written_is_no_alarm(scene: Scene) -> None:
    whole = scene.checkpoints.read_bytes()
    scene.checkpoints.write_bytes(whole + whole[: len(whole) // 3].split(b"\n")[0][:200])

    assert verify(scene.guard) == []
    scene.publish("third", 3)
    assert verify(scene.guard) == []
    assert scene.checkpoints.read_bytes().startswith(whole)


def test_a_crash_between_the_file_and_its_note_is_no_alarm(scene: Scene) -> None:
    scene.sql(
        "DELETE FROM checkpoint_notes WHERE number = (SELECT max(number) FROM checkpoint_notes)"
    )

    assert verify(scene.guard) == []
    reconcile_guard(scene.guard)
    with reading(scene.guard.engine) as session:
        noted = ledger_acts.last_checkpoint(session)
    newest = standing(scene.guard).newest
    assert noted is not None
    assert newest is not None
    assert noted.number == newest.number
    assert scene.alarms == {}


def test_a_checkpoint_that_cannot_be_written_is_an_alarm_and_is_made_up_for(scene: Scene) -> None:
    folder = scene.checkpoints.parent
    lock = folder / ".lock"
    lock.unlink()
    lock.mkdir()  # no process may write now, whoever runs this test

    scene.publish("third", 3)

    assert "checkpoint_failed" in scene.alarms
    lock.rmdir()
    reconcile_guard(scene.guard)
    assert scene.alarms == {}
    assert verify(scene.guard) == []


@pytest.mark.threat("C26")
@pytest.mark.parametrize("how", ["emptied", "missing"])
def test_without_trusted_keys_nothing_is_signed_and_one_sentence_says_so(
    scene: Scene, how: str
) -> None:
    if how == "emptied":
        scene.trusted.write_text('{"keys": []}')
    else:
        scene.trusted.unlink()
    again = open_guard(scene.guard.settings)

    with pytest.raises(InputError, match="guard keys trust") as refusal:
        _ = again.signer
    assert refusal.value.code == "no_trusted_keys"
    assert TrustedKeys.load(scene.trusted).keys == {}
    sentences = [p for p in verify(scene.guard) if "is served" not in p]
    assert len(sentences) == 1
    assert "guard keys trust" in sentences[0]
    with pytest.raises(IntegrityMismatch):
        publish.request(scene.guard, scene.good, "operator")

    keys.trust(again, str(again.settings.signing_key_file), "it was emptied", "carol")
    assert open_guard(scene.guard.settings).signer.key_id in TrustedKeys.load(scene.trusted).keys
    assert standing(scene.guard).broken == ()


def test_no_key_is_made_beside_a_ledger(scene: Scene) -> None:
    path = scene.guard.settings.signing_key_file
    path.unlink()

    with pytest.raises(InputError) as refusal:
        _ = open_guard(scene.guard.settings).signer
    assert refusal.value.code == "no_signing_key"
    assert not path.exists()


def test_an_emptied_database_beside_checkpoints_is_no_first_start(scene: Scene) -> None:
    scene.sql(
        "DELETE FROM reviews",
        "DELETE FROM verdicts",
        "DELETE FROM ledger_acts",
        "DELETE FROM revocations",
        "DELETE FROM checkpoint_notes",
    )
    scene.trusted.unlink()

    with pytest.raises(InputError) as refusal:
        _ = open_guard(scene.guard.settings).signer
    assert refusal.value.code == "no_trusted_keys"


def test_a_key_that_no_act_made_trusted_is_named(scene: Scene) -> None:
    stranger = Signer.load_or_create(scene.folder / "stranger.pem")
    TrustedKeys.load(scene.trusted).trust(stranger, scene.trusted)

    (problem,) = verify(scene.guard)
    assert stranger.key_id[:16] in problem


def test_keys_are_rotated_by_recorded_acts(scene: Scene) -> None:
    new = scene.folder / "data" / "keys" / "signing-2.pem"
    old = scene.guard.signer.key_id
    key_id = keys.make_key(new)
    with pytest.raises(InputError, match="not trusted"):
        _ = open_guard(replace(scene.guard.settings, signing_key_file=new)).signer
    keys.trust(scene.guard, str(new), "yearly", "carol")
    assert verify(scene.guard) == []
    with pytest.raises(InputError) as refusal:
        keys.distrust(scene.guard, old[:12], "leaked", "carol")
    assert refusal.value.code == "own_key"

    rotated: Guard = replace(
        open_guard(replace(scene.guard.settings, signing_key_file=new)),
        now=scene.guard.now,
        make_publisher=scene.guard.make_publisher,
    )
    keys.distrust(rotated, old[:12], "leaked", "carol")

    assert list(rotated.trusted.keys) == [key_id]
    found = standing(rotated)
    assert found.broken == ()  # the newest checkpoint is signed by the new key
    assert scene.revoked in found.revoked  # revoking outlives the key that signed it
    assert [row.kind for row in found.acts] == ["open", "revocation", "trust", "distrust"]


class Shelf:
    """Objects in memory, with the three calls that checkpoints need."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False

    def keys_after(self, prefix: str, after: str) -> list[str]:
        self._ask()
        return sorted(key for key in self.objects if key.startswith(prefix) and key > after)

    def read_small(self, key: str, limit: int) -> tuple[bytes, None]:
        self._ask()
        assert len(self.objects[key]) <= limit
        return self.objects[key], None

    def put_new(self, key: str, data: bytes) -> None:
        self._ask()
        self.objects.setdefault(key, data)

    def _ask(self) -> None:
        if self.away:
            raise Unavailable("The bucket is away.")


@pytest.fixture
def shelf(scene: Scene) -> Shelf:
    """The bucket that the scene's guard is set to copy checkpoints to."""
    made = Shelf()
    scene.guard = replace(
        scene.guard,
        settings=replace(scene.guard.settings, checkpoint_bucket="elsewhere"),
        make_bucket=lambda _name: cast("Bucket", made),
    )
    return made


def test_with_a_bucket_rolling_back_database_and_file_together_is_seen(
    scene: Scene, shelf: Shelf
) -> None:
    reconcile_guard(scene.guard)  # copies the newest one
    assert len(shelf.objects) == 1
    scene.restore_database()
    shutil.copy(scene.before / FILE, scene.checkpoints)

    assert any("the file was deleted or replaced" in problem for problem in verify(scene.guard))
    with pytest.raises(IntegrityMismatch):
        publish.request(scene.guard, scene.bad, "operator")
    accept(scene.guard, "restored", "carol")
    assert standing(scene.guard).broken == ()


def test_a_bucket_that_is_away_stops_publishing_and_is_made_up_for(
    scene: Scene, shelf: Shelf
) -> None:
    shelf.away = True
    with pytest.raises(Unavailable):
        publish.request(scene.guard, scene.good, "operator")
    assert reconcile_guard(scene.guard) == []
    assert "could not be compared" in scene.alarms["ledger_broken"]

    shelf.away = False
    reconcile_guard(scene.guard)
    assert scene.alarms == {}
    assert len(shelf.objects) == 1


def test_a_changed_object_in_the_bucket_is_seen(scene: Scene, shelf: Shelf) -> None:
    reconcile_guard(scene.guard)
    (key,) = shelf.objects
    shelf.objects[key] = shelf.objects[key].replace(b"A", b"B")

    with pytest.raises(IntegrityMismatch):
        publish.request(scene.guard, scene.good, "operator")


@pytest.fixture
def volume(scene: Scene, tmp_path: Path) -> Path:
    """The folder that the scene's guard is set to copy checkpoints to."""
    folder = tmp_path / "volume"
    folder.mkdir()
    scene.guard = replace(
        scene.guard, settings=replace(scene.guard.settings, checkpoint_copy=folder)
    )
    return folder


def roll_back_everything(scene: Scene) -> None:
    scene.restore_database()
    shutil.copy(scene.before / FILE, scene.checkpoints)


def test_with_a_copy_on_another_volume_rolling_back_database_and_file_together_is_seen(
    scene: Scene, volume: Path
) -> None:
    reconcile_guard(scene.guard)  # copies the newest one
    roll_back_everything(scene)

    assert any(
        "The copy (GUARD_CHECKPOINT_COPY) holds checkpoint" in problem
        and "the file was deleted or replaced" in problem
        for problem in verify(scene.guard)
    )
    with pytest.raises(IntegrityMismatch):
        publish.request(scene.guard, scene.bad, "operator")
    accept(scene.guard, "restored", "carol")
    assert standing(scene.guard).broken == ()
    lines = scene.checkpoints.read_bytes().splitlines()
    assert (volume / FILE).read_bytes().splitlines()[-1] == lines[-1]


def test_without_any_copy_rolling_back_database_note_and_file_together_is_not_seen(
    scene: Scene,
) -> None:
    roll_back_everything(scene)

    assert not [problem for problem in verify(scene.guard) if "rolled back" in problem]
    assert standing(scene.guard).broken == ()


def test_a_copy_that_was_rolled_back_too_is_no_better_than_none(scene: Scene, volume: Path) -> None:
    shutil.copy(scene.before / FILE, volume / FILE)
    roll_back_everything(scene)

    assert standing(scene.guard).broken == ()


def test_what_a_killed_process_left_in_the_copy_is_replaced(scene: Scene, volume: Path) -> None:
    reconcile_guard(scene.guard)
    copy = volume / FILE
    with copy.open("ab") as file:
        file.write(b'{"payload": "half a li')

    assert standing(scene.guard).copied
    withdraw(scene.guard, "good", "worse than thought", "bob")

    assert b"half a li" not in copy.read_bytes()
    assert copy.read_bytes().splitlines()[-1] == scene.checkpoints.read_bytes().splitlines()[-1]
    assert standing(scene.guard).broken == ()


@pytest.mark.threat("C26")
def test_a_volume_that_is_not_mounted_stops_publishing_and_is_made_up_for(
    scene: Scene, volume: Path
) -> None:
    volume.rmdir()
    with pytest.raises(Unavailable, match="mount or make it"):
        publish.request(scene.guard, scene.good, "operator")
    assert reconcile_guard(scene.guard) == []
    assert "could not be compared" in scene.alarms["ledger_broken"]

    volume.mkdir()
    reconcile_guard(scene.guard)
    assert scene.alarms == {}
    assert (volume / FILE).exists()
