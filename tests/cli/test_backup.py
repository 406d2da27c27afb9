"""`guard backup`: what it prints, its exit codes, and whose act a restoring is."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from guard import bootstrap
from guard.cli._service import login_name
from guard.core.roles import Role
from guard.core.states import Verdict
from guard.flow.context import Guard
from guard.publishers.folder import Folder
from guard.settings import Settings, load_settings
from tests import people
from tests.cli.conftest import Answer, Service

Cli = Callable[..., Answer]
OPEN = bootstrap.open_guard  # itself, before a fixture stands something else in its place


@pytest.fixture
def made(service: Service, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A back-up of a guard with a verdict and an operator, whose database is lost behind it."""
    service.scan(Verdict.CLEARED)
    token = people.give(service.guard, "olga", Role.OPERATOR)
    answer = cli("backup", "create", tmp_path / "b")
    assert answer.code == 0, answer.err
    service.guard.engine.dispose()
    for path in service.guard.settings.data_dir.glob("guard.db*"):
        path.unlink()
    service.guard = _opened(service.guard.settings)
    monkeypatch.setenv("GUARD_TOKEN", token)
    return answer.out


def test_a_back_up_names_who_signed_it_and_how_to_restore_it(
    service: Service, made: str, tmp_path: Path
) -> None:
    key_id = json.loads((tmp_path / "b" / "backup.json").read_text())["signatures"][0]["keyid"]

    assert "blobs (named), checkpoint" in made
    assert f"guard backup restore {tmp_path / 'b'} --key {key_id}" in made
    assert not (tmp_path / "b" / "signing.pem").exists()


def test_whose_token_the_restored_database_knows_did_it(
    service: Service, made: str, cli: Cli, tmp_path: Path
) -> None:
    answer = cli("backup", "restore", tmp_path / "b")

    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("restored ")
    (act, *_) = json.loads(cli("acts", "list", "--format", "json").out)
    assert (act["act"], act["principal"], act["authenticated"]) == ("db_restore", "olga", True)
    assert cli("verify").code == 0
    again = cli("backup", "restore", tmp_path / "b")
    assert (again.code, again.out) == (4, "")
    assert "not empty" in again.err


def test_a_token_that_the_restored_database_does_not_know_is_no_hindrance(
    service: Service, made: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARD_TOKEN", "guard_unknown")

    assert cli("backup", "restore", tmp_path / "b").code == 0

    monkeypatch.delenv("GUARD_TOKEN")
    (act, *_) = json.loads(cli("acts", "list", "--format", "json").out)
    assert (act["principal"], act["authenticated"]) == (login_name(), False)


def test_missing_blobs_and_an_older_ledger_end_with_the_code_of_a_mismatch(
    service: Service, made: str, cli: Cli, tmp_path: Path
) -> None:
    blobs = Path(service.guard.settings.blob_url)
    shutil.rmtree(blobs)
    checkpoints = service.guard.settings.checkpoint_dir / "checkpoints.jsonl"
    line = checkpoints.read_bytes().splitlines()[-1]
    checkpoints.write_bytes(checkpoints.read_bytes() + line + b"\n")

    refused = cli("backup", "restore", tmp_path / "b")
    answer = cli("backup", "restore", tmp_path / "b", "--older")

    assert (refused.code, refused.out) == (4, "")
    assert "--older" in refused.err
    assert answer.code == 6
    assert "missing: blob " in answer.out
    assert "guard ledger accept" in answer.out


def test_everything_can_be_taken_along(
    service: Service, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        service.scan(Verdict.CLEARED, name=f"model-{number}", data=b"weights %d" % number)
    answer = cli("backup", "create", tmp_path / "b", "--blobs", "--signing-key")
    key_id = service.guard.signer.key_id
    named = cli("backup", "create", tmp_path / "n")
    monkeypatch.setattr(service, "guard", _elsewhere(tmp_path / "new", monkeypatch))
    restored = cli("backup", "restore", tmp_path / "b", "--key", key_id)

    assert "8 blobs (copied)" in answer.out
    assert (restored.code, "restored the signing key" in restored.out) == (0, True)
    assert cli("verify").code == 0
    assert named.code == 0
    monkeypatch.setattr(service, "guard", _elsewhere(tmp_path / "third", monkeypatch))
    missing = cli("backup", "restore", tmp_path / "n", "--key", key_id)
    assert (missing.code, "missing: 3 more blobs" in missing.out) == (6, True)


def _opened(settings: Settings) -> Guard:
    shelf = settings.data_dir / "served"
    return replace(OPEN(settings), make_publisher=lambda: Folder(shelf))


def _elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    monkeypatch.setenv("GUARD_DATA_DIR", str(folder))
    return _opened(load_settings({"GUARD_DATA_DIR": str(folder)}))
