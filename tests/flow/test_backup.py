"""A back-up is made, everything is lost, and what was served is served again from the back-up."""

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from guard.attest import acts as signing
from guard.attest import inventory
from guard.attest.dsse import payload
from guard.attest.keys import Signer, TrustedKeys
from guard.bootstrap import open_guard
from guard.core.errors import GuardError, InputError, IntegrityMismatch, Unavailable
from guard.core.plain import from_plain
from guard.core.roles import Role
from guard.core.states import ScanState
from guard.flow import run_stage
from guard.flow._backup_folder import BLOBS, CHECKPOINTS, DATABASE, TRUSTED, BackupFolder
from guard.flow._standing import standing
from guard.flow.accept import accept
from guard.flow.backup import create, restore
from guard.flow.context import Guard
from guard.flow.principals import Principal, authenticate
from guard.flow.reconcile import reconcile_guard
from guard.flow.report import report_for
from guard.flow.verify import verify
from guard.flow.withdraw import withdraw
from guard.notify import sealing
from guard.notify.sealing import Target
from guard.publishers.folder import Folder
from guard.settings import load_settings
from guard.store import acts, dump, ledger_acts, migrate, scans
from guard.store.session import make_engine, reading, transaction
from tests import people, postgres
from tests.flow.shop import Shop
from tests.flow.test_golden import GOLDEN, REPORTS, SCANS

RELEASE = "1.2.3"


def ANN() -> Principal:  # noqa: N802 - a constant that is called
    return Principal(name="ann", role=None)


OLDER = "0009"  # a schema that will not change any more


class Lost(Shop):
    """A registry with a served model, a withdrawn one, a held one and a token."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.first = self.serve("models/fraud/m.pt", 0, at=1)
        self.second = self.serve("models/spam/m.pt", 1, at=2)
        self.bad = self.put("models/natural/m.pt", 3)
        self.finish(self.bad)
        withdraw(self.guard, "spam", "wrong", "carol")


def empty(folder: Path, url: str = "") -> Guard:
    """A guard in a place where nothing is."""
    env = {"GUARD_DATA_DIR": str(folder / "data"), "GUARD_DATABASE_URL": url}
    settings = load_settings({name: value for name, value in env.items() if value})
    return replace(open_guard(settings), make_publisher=lambda: Folder(root=folder / "served"))


@pytest.fixture
def lost(tmp_path: Path) -> Lost:
    return Lost(tmp_path / "old")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Lost:
    """One for all tests that change nothing in it."""
    made = Lost(tmp_path_factory.mktemp("kept"))
    create(made.guard, made.folder / "b", RELEASE)
    return made


@pytest.fixture
def made(kept: Lost, tmp_path: Path) -> Path:
    """Its back-up, for a test to change."""
    return Path(shutil.copytree(kept.folder / "b", tmp_path / "b"))


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guard]:
    """An empty place on either database."""
    if request.param == "sqlite":
        yield empty(tmp_path / "new")
        return
    with postgres.empty() as url:
        guard = empty(tmp_path / "new", url)
        yield guard
        guard.engine.dispose()


def rows(guard: Guard) -> list[bytes]:
    """Every row of a database, but for what restoring itself adds."""
    return list(dump.lines(guard.engine, lambda _table: None))


def test_after_a_total_loss_the_chain_holds_and_what_was_served_is_served_again(
    lost: Lost, place: Guard, tmp_path: Path
) -> None:
    before, was_served = rows(lost.guard), {one.digest for one in lost.guard.publisher.state()}
    report = report_for(lost.guard, lost.first).to_dict()
    key_id, facts = create(lost.guard, tmp_path / "b", RELEASE, blobs=True, signing_key=True)
    clock = lost.clock
    shutil.rmtree(tmp_path / "old")
    guard = replace(place, now=lambda: clock)

    done = restore(guard, tmp_path / "b", ANN, key=key_id)

    assert (done.missing, done.behind, done.signing_key) == ((), False, True)
    assert done.rows == sum(facts.tables.values())
    assert verify(guard) == []
    after = rows(guard)
    assert [line for line in before if line not in after] == []
    with reading(guard.engine) as session:
        act = acts.list_recent(session, 1)[0]
    assert (act.act, act.principal, act.authenticated) == ("db_restore", "ann", False)
    with reading(guard.engine) as session:
        sealed = [signing.read_act(payload(row.envelope)) for row in ledger_acts.rows(session)]
    assert [item.by for item in sealed if (item.entry or {}).get("act") == "db_restore"] == ["ann"]
    assert standing(guard).check().unsealed == ()
    assert guard.publisher.state() == []
    reconcile_guard(guard)
    with reading(guard.engine) as session:
        again = [
            scan.id for scan in scans.list_recent(session) if scan.state is ScanState.PUBLISHING
        ]
    for scan_id in again:
        run_stage.work(guard, "publish", scan_id)
    assert {one.digest for one in guard.publisher.state()} == was_served != set()
    assert report_for(guard, lost.first).to_dict()["verdict"] == report["verdict"]


def test_a_private_key_is_in_a_back_up_only_where_it_was_asked_for(
    kept: Lost, tmp_path: Path
) -> None:
    create(kept.guard, tmp_path / "b", RELEASE)
    create(kept.guard, tmp_path / "k", RELEASE, signing_key=True)
    pem = kept.guard.settings.signing_key_file.read_bytes()

    assert not [
        one for one in (tmp_path / "b").rglob("*") if one.is_file() and pem in one.read_bytes()
    ]
    assert (tmp_path / "k" / "signing.pem").read_bytes() == pem
    for path in (tmp_path / "b", tmp_path / "k", *(tmp_path / "k").iterdir()):
        assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(InputError) as caught:
        create(kept.guard, tmp_path / "b", RELEASE)
    assert caught.value.code == "backup_dir"


def test_blobs_that_are_nowhere_are_named(kept: Lost, tmp_path: Path) -> None:
    key_id, facts = create(kept.guard, tmp_path / "b", RELEASE)
    new = empty(tmp_path / "new")
    one = kept.models[0]
    with kept.guard.blobs.open(one) as file:
        new.blobs.put([file.read()])

    done = restore(new, tmp_path / "b", ANN, key=key_id)

    assert len(done.missing) == facts.blobs - 1 > 0
    assert one not in done.missing
    assert verify(new) != []


CHANGES: dict[str, Callable[[Path], object]] = {
    "another row": lambda folder: (folder / "database.jsonl.gz").write_bytes(
        gzip.compress(b'{"table":"tokens","columns":[]}\n')
    ),
    "a file less": lambda folder: (folder / "checkpoints.jsonl").unlink(),
    "a key more": lambda folder: (folder / "trusted.json").write_text('{"keys": []}'),
    "fewer blobs": lambda folder: (folder / "blobs.txt").write_text(""),
    "no JSON": lambda folder: (folder / "backup.json").write_text("{"),
    "no envelope": lambda folder: (folder / "backup.json").write_text("[]"),
    "signed by another": lambda folder: (folder / "backup.json").write_text(
        json.dumps(_resigned(folder, Signer.load_or_create(folder.parent / "other.pem")))
    ),
}


def _resigned(folder: Path, signer: Signer, **changes: object) -> dict[str, object]:
    """The inventory of a back-up as it would be with other facts, signed by `signer`."""
    source = json.loads((folder / "backup.json").read_text())
    statement = payload(source)
    files = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
    extra = changes.pop("files", {})
    facts = from_plain(inventory.Facts, statement["predicate"])
    return inventory.sign({**files, **extra}, replace(facts, **changes), signer)  # type: ignore[arg-type, dict-item]


def test_a_file_that_is_changed_while_it_is_restored_is_noticed(kept: Lost, made: Path) -> None:
    folder = BackupFolder(made)
    folder.check(inventory.read(folder.envelope(), kept.guard.trusted)[0])
    (made / BLOBS).write_text("")

    with pytest.raises(IntegrityMismatch):
        folder.read(BLOBS)


def test_an_inventory_of_nothing_is_none(kept: Lost, made: Path) -> None:
    facts = inventory.read(BackupFolder(made).envelope(), kept.guard.trusted)[1]

    with pytest.raises(IntegrityMismatch):
        inventory.read(inventory.sign({}, facts, kept.guard.signer), kept.guard.trusted)


@pytest.mark.threat("C22")
@pytest.mark.parametrize("change", list(CHANGES))
def test_a_back_up_that_was_changed_is_refused_and_nothing_is_written(
    change: str, kept: Lost, made: Path, tmp_path: Path
) -> None:
    CHANGES[change](made)
    new = empty(tmp_path / "new")
    shutil.copytree(kept.folder / "data" / "keys", tmp_path / "new" / "data" / "keys")

    with pytest.raises(IntegrityMismatch):
        restore(new, made, ANN)

    assert migrate.current_of(new.engine) is None
    assert not (tmp_path / "new" / "data" / "checkpoints").exists()


def test_an_inventory_that_names_what_no_back_up_has_is_refused(
    kept: Lost, made: Path, tmp_path: Path
) -> None:
    folder = made
    envelope = _resigned(folder, kept.guard.signer, files={"../x": "0" * 64})
    (folder / "backup.json").write_text(json.dumps(envelope))
    new = empty(tmp_path / "new")

    with pytest.raises(IntegrityMismatch) as caught:
        restore(new, folder, ANN, key=kept.guard.signer.key_id)

    assert caught.value.code == "backup_changed"


def test_a_statement_of_another_kind_is_no_inventory(
    kept: Lost, made: Path, tmp_path: Path
) -> None:
    with reading(kept.guard.engine) as session:
        envelope = session.execute(text("SELECT envelope FROM verdicts")).scalars().first()
    (made / "backup.json").write_text(str(envelope))

    with pytest.raises(IntegrityMismatch) as caught:
        restore(empty(tmp_path / "new"), made, ANN, key=kept.guard.signer.key_id)

    assert caught.value.code == "bad_statement"


def test_nobody_is_trusted_because_a_back_up_says_so(
    kept: Lost, made: Path, tmp_path: Path
) -> None:
    key_id = kept.guard.signer.key_id
    new = empty(tmp_path / "new")

    with pytest.raises(InputError) as caught:
        restore(new, made, ANN)
    assert caught.value.code == "backup_untrusted"
    with pytest.raises(IntegrityMismatch):
        restore(new, made, ANN, key="0" * 64)
    assert migrate.current_of(new.engine) is None
    assert restore(new, made, ANN, key=key_id).rows


def test_a_database_is_never_replaced(kept: Lost, made: Path, tmp_path: Path) -> None:

    with pytest.raises(InputError) as caught:
        restore(kept.guard, made, ANN)

    assert caught.value.code == "restore_not_empty"
    assert verify(kept.guard) == []


def _forget(lost: Lost) -> None:
    """The database alone is lost."""
    lost.guard.engine.dispose()
    for path in (lost.folder / "data").glob("guard.db*"):
        path.unlink()


def test_a_back_up_older_than_the_checkpoints_needs_a_person_who_says_so(
    lost: Lost, tmp_path: Path
) -> None:
    create(lost.guard, tmp_path / "b", RELEASE)
    withdraw(lost.guard, "fraud", "found out", "carol")  # after the back-up
    _forget(lost)

    with pytest.raises(InputError) as caught:
        restore(lost.guard, tmp_path / "b", ANN)
    assert caught.value.code == "restore_older"

    done = restore(lost.guard, tmp_path / "b", ANN, older=True)
    assert done.behind
    assert verify(lost.guard) != []
    accept(lost.guard, "the back-up of Monday", "ann")
    assert verify(lost.guard) == []
    reconcile_guard(lost.guard)
    assert lost.answers == {}  # what was withdrawn since stays withdrawn


def test_a_copy_of_the_checkpoints_elsewhere_shows_an_older_back_up_too(
    lost: Lost, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    watched = replace(lost.guard, settings=replace(lost.guard.settings, checkpoint_copy=copy))
    key_id, _ = create(watched, tmp_path / "b", RELEASE)
    withdraw(watched, "fraud", "found out", "carol")
    new = empty(tmp_path / "new")
    new = replace(new, settings=replace(new.settings, checkpoint_copy=copy))

    with pytest.raises(InputError) as caught:
        restore(new, tmp_path / "b", ANN, key=key_id)

    assert caught.value.code == "restore_older"


def test_checkpoints_of_another_ledger_are_not_overwritten(
    kept: Lost, made: Path, tmp_path: Path
) -> None:
    key_id = kept.guard.signer.key_id
    new = empty(tmp_path / "new")
    place = new.settings.checkpoint_dir / "checkpoints.jsonl"
    place.parent.mkdir()
    place.write_text("another\n")

    with pytest.raises(InputError) as caught:
        restore(new, made, ANN, key=key_id)

    assert caught.value.code == "restore_other_ledger"
    assert place.read_text() == "another\n"


def test_keys_that_are_there_already_stay(lost: Lost, tmp_path: Path) -> None:
    create(lost.guard, tmp_path / "b", RELEASE, signing_key=True)
    keys = lost.guard.settings.signing_key_file.parent
    before = {path.name: path.read_bytes() for path in keys.iterdir() if path.is_file()}
    _forget(lost)

    assert not restore(lost.guard, tmp_path / "b", ANN).signing_key

    assert {path.name: path.read_bytes() for path in keys.iterdir() if path.is_file()} == before
    assert verify(lost.guard) == []


def test_destinations_of_notifications_open_again_where_private_keys_came_along(
    kept: Lost, tmp_path: Path
) -> None:
    settings = replace(kept.guard.settings, hooks_key_file=tmp_path / "hooks.key")
    target = Target(address="https://a.example", secret="whsec_x")
    sealed = sealing.seal(settings.hooks_key_file, "one", target)
    guard = replace(kept.guard, settings=settings)
    key_id, _ = create(guard, tmp_path / "b", RELEASE, signing_key=True)
    create(guard, tmp_path / "without", RELEASE)
    new = empty(tmp_path / "new")
    restore(new, tmp_path / "b", ANN, key=key_id)

    assert sealing.unseal(new.settings.hooks_key_file, "one", sealed) == target
    assert not (tmp_path / "without" / "hooks.key").exists()


def test_every_table_of_the_schema_is_in_a_back_up(kept: Lost) -> None:
    with reading(kept.guard.engine) as session:
        there = set(inspect(session.connection()).get_table_names())
    found = {
        item["table"] for line in rows(kept.guard) if isinstance(item := json.loads(line), dict)
    }

    assert found == there - {"alembic_version"}


def test_an_unfinished_back_up_is_none(kept: Lost, made: Path, tmp_path: Path) -> None:
    (made / "backup.json").unlink()

    with pytest.raises(InputError) as caught:
        restore(empty(tmp_path / "new"), made, ANN, key="0" * 64)

    assert caught.value.code == "backup_dir"


def test_a_folder_that_cannot_be_written_is_a_sentence(kept: Lost, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Unavailable) as caught:
        create(kept.guard, tmp_path / "file" / "b", RELEASE)

    assert caught.value.code == "backup_file"


def test_a_schema_of_another_release_is_not_backed_up(lost: Lost, tmp_path: Path) -> None:
    migrate.downgrade(lost.guard.settings.database_url, OLDER)

    with pytest.raises(InputError) as caught:
        create(lost.guard, tmp_path / "b", RELEASE)

    assert caught.value.code == "schema_differs"


def test_the_back_up_of_an_older_release_is_restored_and_upgraded(
    kept: Lost, place: Guard, tmp_path: Path
) -> None:
    """As a release would have made it whose schema had no training jobs."""
    address, counts = f"sqlite:///{tmp_path / 'old.db'}", dict[str, int]()
    migrate.upgrade(address, OLDER)
    engine = make_engine(address)
    with transaction(engine) as session:
        counts = dump.load(session, [HEADER, artifact("a", None)])
    folder = BackupFolder(tmp_path / "b")
    folder.make()
    for name, data in ((CHECKPOINTS, b""), (BLOBS, b"")):
        folder.write(name, data)
    folder.write(TRUSTED, kept.guard.settings.trusted_keys_file.read_bytes())
    folder.write_lines(DATABASE, dump.lines(engine, lambda _table: None))
    engine.dispose()
    facts = inventory.Facts(
        made_at=kept.clock, release="0.9", schema=OLDER, checkpoint=0, tables=counts, blobs=0
    )
    folder.seal(inventory.sign(folder.digests, facts, kept.guard.signer))

    assert restore(place, folder.path, ANN, key=kept.guard.signer.key_id).rows == 1

    assert migrate.current_of(place.engine) == migrate.head()
    with reading(place.engine) as session:
        assert session.execute(text("SELECT digest FROM artifacts")).scalar() == "a" * 64


def test_a_dump_with_other_rows_than_the_inventory_counts_leaves_no_database(
    kept: Lost, made: Path, tmp_path: Path
) -> None:
    folder = made
    key_id = kept.guard.signer.key_id
    (folder / "backup.json").write_text(
        json.dumps(_resigned(folder, kept.guard.signer, tables={"scans": 1}))
    )
    new = empty(tmp_path / "new")

    with pytest.raises(IntegrityMismatch):
        restore(new, folder, ANN, key=key_id)

    assert migrate.current_of(new.engine) is None


def test_the_oldest_database_that_is_kept_is_upgraded_backed_up_and_restored_elsewhere(
    tmp_path: Path,
) -> None:
    """An upgrade as an operator does it: the golden SQLite of an early release, now PostgreSQL."""
    data = tmp_path / "old" / "data"
    (data / "keys").mkdir(parents=True)
    shutil.copyfile(GOLDEN / "trusted.json", data / "keys" / "trusted.json")
    shutil.copytree(GOLDEN / "blobs", data / "blobs")
    old = empty(tmp_path / "old")
    raw = create_engine(old.settings.database_url).raw_connection()
    raw.executescript((GOLDEN / "guard.sql").read_text())
    raw.close()
    first = migrate.current_of(old.engine)
    migrate.upgrade(old.settings.database_url)
    signer = Signer.load_or_create(old.settings.signing_key_file)
    TrustedKeys.load(old.settings.trusted_keys_file).trust(signer, old.settings.trusted_keys_file)
    assert verify(old) == []
    key_id, facts = create(old, tmp_path / "b", RELEASE, blobs=True, signing_key=True)

    with postgres.empty() as url:
        new = empty(tmp_path / "new", url)
        done = restore(new, tmp_path / "b", ANN, key=key_id)
        assert first != migrate.head()
        assert (done.missing, done.rows) == ((), sum(facts.tables.values()))
        assert verify(new) == []
        for scan_id in (SCANS[name] for name in REPORTS):
            assert (
                report_for(new, scan_id).to_dict()["verdict"]
                == report_for(old, scan_id).to_dict()["verdict"]
            )
        new.engine.dispose()


def test_tokens_come_back_and_go_on_counting(lost: Lost, tmp_path: Path) -> None:
    token = people.give(lost.guard, "root", Role.OPERATOR)
    key_id, _ = create(lost.guard, tmp_path / "b", RELEASE)
    new = replace(empty(tmp_path / "new"), now=lambda: lost.clock)
    restore(new, tmp_path / "b", ANN, key=key_id)

    assert authenticate(new, token).name == "root"


# The dump itself


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgresql":
        with postgres.empty() as address:
            migrate.upgrade(address, OLDER)
            yield address
        return
    migrate.upgrade(f"sqlite:///{tmp_path / 'guard.db'}", OLDER)
    yield f"sqlite:///{tmp_path / 'guard.db'}"


ARTIFACT = {
    "size": 1,
    "kind": "upload",
    "manifest": None,
    "created_at": "2026-11-30T12:00:00+00:00",
}
COLUMNS = ["digest", "size", "kind", "parent_digest", "manifest", "created_at"]


def artifact(digest: str, parent: str | None) -> bytes:
    row = {"digest": digest * 64, "parent_digest": parent and parent * 64, **ARTIFACT}
    return json.dumps([row[name] for name in COLUMNS]).encode()


HEADER = json.dumps({"table": "artifacts", "columns": COLUMNS}).encode()


def test_rows_that_refer_to_later_ones_of_their_table_wait_for_them(url: str) -> None:
    engine = make_engine(url)
    lines = [
        HEADER,
        artifact("a", "b"),
        artifact("b", "c"),
        artifact("d", "b"),
        artifact("c", None),
    ]
    with transaction(engine) as session:
        assert dump.load(session, []) == {}
        assert dump.load(session, lines) == {"artifacts": 4}
    with reading(engine) as session:
        nothing = "SELECT count(*) FROM artifacts WHERE manifest IS NULL"
        assert session.execute(text(nothing)).scalar() == 4
    engine.dispose()


WRONG: dict[str, list[bytes]] = {
    "a row of no table": [artifact("a", None)],
    "a table that is not there": [b'{"table": "nothing", "columns": []}'],
    "other columns": [b'{"table": "artifacts", "columns": ["digest"]}'],
    "a parent that is not there": [HEADER, artifact("a", "b")],
}


@pytest.mark.parametrize("what", list(WRONG))
def test_a_dump_that_does_not_fit_is_refused_whole(what: str, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'guard.db'}"
    migrate.upgrade(address, OLDER)
    engine = make_engine(address)
    with pytest.raises(GuardError), transaction(engine) as session:
        dump.load(
            session,
            [HEADER, artifact("9", None), *WRONG[what]] if "row" not in what else WRONG[what],
        )
    with reading(engine) as session:
        assert session.execute(text("SELECT count(*) FROM artifacts")).scalar() == 0
    engine.dispose()


def test_more_rows_than_a_batch_come_back_and_numbers_go_on_behind_them(url: str) -> None:
    engine = make_engine(url)
    columns = ["id", "task", "payload", "created_at", "not_before", "sent_at"]
    at = "2026-11-30T12:00:00+00:00"
    many = dump.BATCH + 5
    lines = [json.dumps({"table": "outbox", "columns": columns}).encode()]
    lines += [json.dumps([n, "publish", {"n": n}, at, at, None]).encode() for n in range(1, many)]
    with transaction(engine) as session:
        assert dump.load(session, lines)["outbox"] == many - 1
        session.execute(
            text(
                "INSERT INTO outbox (task, payload, created_at, not_before) "
                "VALUES ('x', '{}', '2026-11-30', '2026-11-30')"
            )
        )
    with reading(engine) as session:
        assert session.execute(text("SELECT max(id) FROM outbox")).scalar() == many
    engine.dispose()
