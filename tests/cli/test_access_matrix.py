"""Every role is tried at every command; `benchmarks/access_table.toml` says who may."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.make_access_doc import acts as table
from guard.core.roles import Act, Role
from guard.flow._seal import tend
from tests.cli.conftest import Answer
from tests.cli.test_every_command import DOINGS, PART, Scene

Cli = Callable[..., Answer]
TABLE = table()
#: These act on the ledger itself, under kinds of their own.
KINDS = {"trust": Act.CHANGE_KEYS, "distrust": Act.CHANGE_KEYS, "accept": Act.ACCEPT_LEDGER}
#: Their scenes end the others': `test_every_command.py` tries them one by one.
ALONE = frozenset({"db upgrade", "ledger accept"})


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(tmp_path)
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: made.guard)
    monkeypatch.chdir(tmp_path)
    yield made
    made.guard.engine.dispose()


def act_of(command: str) -> str:
    kind = str(DOINGS[command][0])
    return str(KINDS.get(kind, kind))


def test_every_command_that_changes_something_is_in_the_table() -> None:
    listed = {command: name for name, row in TABLE.items() for command in row.get("commands", ())}
    assert listed == {command: act_of(command) for command in DOINGS}


@pytest.mark.row(35)
def test_no_command_does_for_another_role_what_the_table_does_not_give_it(
    scene: Scene, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.share()
    monkeypatch.setenv("GUARD_READ_UNASSIGNED", "true")
    tokens = {role: scene.token(role) for role in Role}
    firsts = {command: DOINGS[command][2](scene) for command in DOINGS if command not in ALONE}
    tend(scene.guard)
    before, tried = scene.seq, 0

    for command, first in firsts.items():
        for role in set(Role) - {Role(one) for one in TABLE[act_of(command)]["roles"]}:
            monkeypatch.setenv("GUARD_TOKEN", tokens[role])
            answer = cli(
                *command.split(), *(() if first in PART else (first,)), *DOINGS[command][3]
            )
            assert (answer.code, "role" in answer.err) == (4, True), (command, role, answer.err)
            tried += 1

    tend(scene.guard)
    assert tried > 2 * len(firsts)
    assert scene.since(before) == []
