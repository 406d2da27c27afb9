"""The roles of PostgreSQL: who cannot write verdicts, while the service goes on working."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from guard.api.app import create_app
from guard.core.errors import InputError, Unavailable
from guard.core.hooks import HookKind
from guard.core.roles import Role
from guard.core.states import ScanState, Verdict
from guard.flow import dead_letter, hooks, notify, reconcile, run_stage
from guard.flow.context import Guard
from guard.flow.report import report_for
from guard.settings import Secret
from guard.store import dump, grants
from guard.store._table import Base
from guard.store.grants import DatabaseRole
from guard.store.rows import NominationState
from guard.store.session import database_url, make_engine
from tests import people, postgres
from tests.api.conftest import TOKEN, event
from tests.flow.intake import CONFIG, new_world
from tests.flow.place import Place, finding
from tests.notify.receiver import receiver
from workers.relay import send_due

#: What says that a model may be served, or stands in a chain that the signing key signs.
SIGNED = ("verdicts", "ledger_acts", "checkpoint_notes", "publications", "revocations", "reviews")


@dataclass
class Logins:
    """A login of each role in a database whose tables belong to somebody else."""

    owner: Engine
    engines: dict[DatabaseRole, Engine]

    def __getitem__(self, role: str) -> Engine:
        return self.engines[DatabaseRole(role)]


@pytest.fixture(scope="module")
def made() -> Iterator[Logins]:
    url, prefix, password = postgres.migrated(), f"t{secrets.token_hex(4)}_", secrets.token_hex(8)
    owner = make_engine(url)
    names = grants.grant(owner, prefix)
    with owner.begin() as connection:
        for name in names:
            connection.execute(text(f"ALTER ROLE {name} LOGIN PASSWORD '{password}'"))
    as_them = {
        role: make_engine(
            database_url(url)
            .set(username=prefix + role.value, password=password)
            .render_as_string(hide_password=False)
        )
        for role in DatabaseRole
    }
    yield Logins(owner, as_them)
    for engine in as_them.values():
        engine.dispose()
    with owner.begin() as connection:
        for name in names:
            connection.execute(text(f"DROP OWNED BY {name}"))
            connection.execute(text(f"DROP ROLE {name}"))
    owner.dispose()


@pytest.fixture
def logins(made: Logins) -> Logins:
    postgres.migrated()  # no rows
    return made


class Parts(Place):
    """A place whose parts connect as their own roles."""

    def __init__(self, folder: Path, logins: Logins) -> None:
        super().__init__(folder)
        self.guard.engine.dispose()
        self.logins = logins
        self.become("signer")

    def become(self, role: str) -> Guard:
        self.guard = replace(self.guard, engine=self.logins[role])
        return self.guard


@pytest.fixture
def parts(tmp_path: Path, logins: Logins) -> Parts:
    return Parts(tmp_path, logins)


def refused(engine: Engine, statement: str) -> bool:
    with engine.connect() as connection, suppress(Exception):
        connection.execute(text(statement))
        return False
    return True


def allowed(engine: Engine, table: str, verb: str) -> bool:
    with engine.connect() as connection:
        asked = text("SELECT has_table_privilege(:table, :verb)")
        return bool(connection.execute(asked, {"table": table, "verb": verb}).scalar_one())


@pytest.mark.parametrize("role", list(DatabaseRole))
def test_a_role_has_the_rights_of_the_table_and_no_other(
    logins: Logins, role: DatabaseRole
) -> None:
    engine, tables = logins[role], sorted(Base.metadata.tables)

    for verb, right in (
        ("SELECT", grants.may_read(role)),
        ("INSERT", grants.may_add(role)),
        ("UPDATE", grants.may_change(role)),
        ("DELETE", grants.may_delete(role)),
        ("TRUNCATE", frozenset()),
        ("TRIGGER", frozenset()),
    ):
        assert {table for table in tables if allowed(engine, table, verb)} == right, verb
    assert refused(engine, "CREATE TABLE mine (x int)")
    assert refused(engine, "ALTER TABLE verdicts DISABLE TRIGGER ALL")


@pytest.mark.parametrize("role", ["worker", "api", "notifier", "reader"])
@pytest.mark.parametrize("table", SIGNED)
def test_only_the_signer_writes_what_lets_a_model_be_served(
    logins: Logins, role: str, table: str
) -> None:
    for statement in (
        f"INSERT INTO {table} SELECT * FROM {table}",
        f"UPDATE {table} SET at = at" if table != "verdicts" else "UPDATE verdicts SET seq = seq",
        f"DELETE FROM {table}",
    ):
        assert refused(logins[role], statement), statement


def test_the_signer_cannot_change_what_is_append_only(logins: Logins) -> None:
    for table in grants.APPEND_ONLY:
        assert not allowed(logins["signer"], table, "UPDATE")


def test_a_worker_can_neither_act_as_a_person_nor_give_itself_a_token(logins: Logins) -> None:
    for table in ("acts", "principals", "tokens", "prefix_owners", "cleansets"):
        assert refused(logins["worker"], f"INSERT INTO {table} SELECT * FROM {table}")
    assert refused(logins["worker"], "SELECT hash FROM tokens")
    assert refused(logins["reader"], "SELECT hash FROM tokens")


def test_the_notifier_sends_what_others_recorded_and_deletes_what_is_old(parts: Parts) -> None:
    olga = people.who(parts.guard, "olga", Role.OPERATOR)
    object.__setattr__(parts.guard.settings, "notify_allowed", ("127.0.0.1",))
    with receiver() as there:
        hooks.add(parts.guard, olga, HookKind.WEBHOOK, there.url)
        parts.become("worker")
        parts.upload()  # a worker records what happens
        guard = parts.become("notifier")
        parts.clock += timedelta(minutes=3)
        assert notify.catch_up(guard) == 1
        assert notify.send_due(guard) == 1
        there.answer = (410, {}, b"")
        parts.become("worker")
        parts.upload(seed=1)
        parts.become("notifier")
        parts.clock += timedelta(minutes=3)
        notify.catch_up(parts.guard)
        assert notify.send_due(parts.guard) == 1, "the alarm is raised and the destination rests"
    parts.clock += timedelta(days=31)
    notify.prune(parts.guard)

    assert hooks.log(parts.guard) == []
    assert refused(parts.logins["notifier"], "DELETE FROM alarms")
    assert refused(parts.logins["notifier"], "SELECT hash FROM tokens")


def test_an_upload_comes_into_serving_through_the_three_roles(parts: Parts) -> None:
    parts.add_cleanset()
    _ = parts.guard.signer  # makes the first key
    parts.become("worker")
    scan_id = parts.upload()
    assert run_stage.work(parts.guard, "inspect", scan_id)
    # The curator adds the clean set, as `add_cleanset` here does at every call.
    parts.become("signer")
    parts.with_evidence(scan_id, finding(suspicious=False))

    with pytest.raises(Unavailable, match="permission denied"):
        run_stage.work(parts.become("worker"), "decide", scan_id)
    assert parts.verdicts(scan_id) == []

    parts.clock = parts.clock.replace(hour=parts.clock.hour + 1)  # the worker's lease is over
    parts.become("signer")
    assert run_stage.work(parts.guard, "decide", scan_id)
    assert run_stage.work(parts.guard, "publish", scan_id)
    assert parts.scan(scan_id).state is ScanState.DONE
    assert reconcile.reconcile_guard(parts.guard) == []
    report = report_for(parts.become("reader"), scan_id)
    assert report is not None
    assert [row.verdict for row in parts.verdicts(scan_id)] == [Verdict.CLEARED]


def test_a_worker_receives_and_gives_up_and_notes_what_nobody_could_handle(
    tmp_path: Path, logins: Logins, parts: Parts
) -> None:
    world = new_world(tmp_path / "world", url=str(logins.owner.url))
    world.engine.dispose()
    world.put("in/a/config.json", CONFIG)
    version = world.put("in/a/m.pt", b"weights")
    world.engine = logins["api"]
    nomination = world.nominate("in/a/m.pt", version)
    world.put("in/b/m.pt", b"other weights")
    world.put("in/b/config.json", CONFIG)
    beside = world.nominate("in/b/config.json")
    world.engine = logins["worker"]
    world.receive(nomination)
    world.receive(beside)  # nominates the weights
    dead_letter.record(parts.become("worker"), "receive", {}, "of no use")

    assert world.nomination(nomination).state is NominationState.ACCEPTED
    assert len(world.nominations()) == 3
    assert len(world.scans()) == 1
    scan_id = world.scans()[0].id
    run_stage.bury(parts.guard, "inspect", scan_id, "nobody can")
    assert "nobody can" in (parts.scan(scan_id).error or "")


def test_the_api_and_the_relay_work_with_the_role_of_the_api(parts: Parts) -> None:
    token = people.give(parts.guard, "vera", Role.VIEWER)
    guard = parts.become("api")
    guard = replace(guard, settings=replace(guard.settings, webhook_token=Secret(TOKEN)))
    with TestClient(create_app(guard)) as client:
        ready = client.get("/health/ready")
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        nominated = client.post("/events/s3", json=event())
        client.headers["Authorization"] = f"Bearer {token}"
        metrics = client.get("/metrics")

    assert (ready.status_code, nominated.status_code, metrics.status_code) == (200, 202, 200)
    assert send_due(guard, Celery("here", broker="memory://")) == 1
    assert send_due(guard, Celery("here", broker="memory://")) == 0


def test_roles_are_for_postgresql_and_their_names_are_plain(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'guard.db'}")

    with pytest.raises(InputError, match="SQLite file"):
        grants.grant(engine)
    with pytest.raises(InputError, match="beginning of a role"):
        grants.statements("guard; DROP TABLE verdicts")


def test_a_back_up_is_made_with_the_signer_s_login_and_not_with_the_reader_s(made: Logins) -> None:
    found: list[str] = []

    assert list(dump.lines(made["signer"], found.append))
    with pytest.raises(Unavailable):
        list(dump.lines(made["reader"], found.append))  # tokens
