"""Every role is tried at every act and route; `benchmarks/access_table.toml` says who may."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from benchmarks.make_access_doc import acts as table
from guard.api.app import create_app
from guard.core.errors import InputError
from guard.core.roles import Act, Role
from guard.flow._acts import GUARD, note
from guard.flow._seal import tend
from guard.flow.principals import Forbidden, Principal, Unauthorised, permit
from guard.store import acts, ledger_acts
from guard.store.session import reading, transaction
from tests import people
from tests.api.test_every_route import DOINGS
from tests.cli.test_every_command import Scene
from tests.flow.place import Place

TABLE = table()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.guard.engine.dispose()


@pytest.mark.row(35)
def test_each_role_may_do_what_the_table_says_and_nothing_else(tmp_path: Path) -> None:
    guard = Place(tmp_path).guard
    holders = {role: people.who(guard, f"the-{role}", role) for role in Role}
    found: dict[str, list[str]] = {}

    with reading(guard.engine) as session:
        for act in Act:
            found[act] = []
            for role, who in holders.items():
                try:
                    assert permit(guard, session, who, act).name == who.name
                except Forbidden:
                    continue
                found[act].append(str(role))
            with pytest.raises(Unauthorised):
                permit(guard, session, "a-login", act)

    assert found == {
        name: [str(role) for role in Role if role in row["roles"]] for name, row in TABLE.items()
    }
    guard.engine.dispose()


def test_every_route_that_changes_something_is_in_the_table() -> None:
    listed = {route: name for name, row in TABLE.items() for route in row.get("routes", ())}
    assert listed == {route: str(doing[0]) for route, doing in DOINGS.items()}


def test_no_route_does_for_another_role_what_the_table_does_not_give_it(scene: Scene) -> None:
    scene.share()
    tokens = {role: people.give(scene.guard, f"the-{role}", role) for role in Role}
    wanted = {
        route: (re.sub(r"\{\w+\}", prepare(scene), route.partition(" ")[2]), body(scene), str(act))
        for route, (act, _, prepare, body) in DOINGS.items()
    }
    before = scene.seq
    tried = 0

    with TestClient(create_app(scene.guard)) as client:
        for route, (path, body, act) in wanted.items():
            for role in set(Role) - {Role(one) for one in TABLE[act]["roles"]}:
                headers = {"Authorization": f"Bearer {tokens[role]}"}
                answer = client.post(path, json=body, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), route
                tried += 1
            assert client.post(path, json=body).status_code == 401, route

    tend(scene.guard)
    assert tried > 2 * len(DOINGS)
    assert scene.since(before) == []


def test_no_act_is_in_the_chain_without_a_principal(scene: Scene) -> None:
    guard = scene.guard
    scene.waive()
    for name in ("", " "):
        with pytest.raises(InputError), transaction(guard.engine) as session:
            note(guard, session, Principal(name=name, role=None), Act.SUBMIT, "x", "")

    with reading(guard.engine) as session:
        rows = acts.walk(session, 0, 1000)
        sealed = ledger_acts.rows(session, 0)
    tend(guard)

    assert len(rows) > 5
    assert all(row.principal.strip() and row.at for row in rows)
    assert {row.act for row in rows if row.principal == GUARD} <= {Act.CHANGE_POLICY}
    assert all(name.strip() for _, name in scene.since(0))
    assert len(sealed) >= len(rows)
