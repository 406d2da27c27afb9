"""What a process that is killed in between leaves behind; found by the random schedules."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from sqlalchemy import event

from guard.attest.keys import Signer, TrustedKeys
from guard.bootstrap import open_guard
from guard.core.errors import InputError
from guard.flow import _checkpoints, _seal, _trust, keys
from guard.flow._acts import append
from guard.flow._standing import standing
from guard.flow.context import Guard
from guard.flow.reconcile import reconcile_guard
from guard.flow.verify import verify
from guard.publishers.folder import Folder
from guard.settings import load_settings
from guard.store import alarms
from guard.store.session import reading, transaction
from tests.flow.place import NOW
from tests.flow.registry import Registry


class Killed(BaseException):
    """As a signal would end the process: no `except Exception` sees it."""


def killed(*_: object, **__: object) -> None:
    raise Killed


def test_a_key_is_trusted_by_no_file_before_an_act_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)
    registry.upload("model")
    guard = registry.place.guard
    path = tmp_path / "next.pem"
    key_id = keys.make_key(path)
    with monkeypatch.context() as patched:
        patched.setattr(keys, "record", killed)
        with pytest.raises(Killed):
            keys.trust(guard, str(path), "yearly", "carol")

    assert key_id not in guard.trusted.keys
    assert verify(guard) == []
    keys.trust(guard, str(path), "yearly", "carol")
    assert key_id in guard.trusted.keys
    assert verify(guard) == []


def test_a_ledger_that_was_opened_by_halves_is_opened_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(_seal, "record", killed)
        with pytest.raises(Killed):
            registry.upload("model")

    reconcile_guard(registry.place.guard)

    assert [p for p in verify(registry.place.guard) if "served" not in p] == []


@dataclass
class Rotated:
    """A served model whose verdict was signed by `old`; `guard` signs with another key by now.

    Each is a copy of one that is made once.
    """

    folder: Path
    old: str = field(init=False)
    guard: Guard = field(init=False)

    def __post_init__(self) -> None:
        shutil.copytree(_rotated(), self.folder, dirs_exist_ok=True)
        self.old = Signer.load(self.folder / "data/keys/signing.pem").key_id
        self.guard = self.open("next.pem")

    def open(self, key: str) -> Guard:
        data = self.folder / "data"
        settings = load_settings(
            {"GUARD_DATA_DIR": str(data), "GUARD_SIGNING_KEY_FILE": str(data / "keys" / key)}
        )
        publisher = Folder(root=self.folder / "served")
        return replace(open_guard(settings), now=lambda: NOW, make_publisher=lambda: publisher)

    @property
    def file(self) -> TrustedKeys:
        return TrustedKeys.load(self.guard.settings.trusted_keys_file)

    @property
    def acts(self) -> list[tuple[str, str]]:
        return [(row.kind, row.subject) for row in standing(self.guard).acts]

    @property
    def alarms(self) -> list[str]:
        with reading(self.guard.engine) as session:
            return [row.kind for row in alarms.open_alarms(session)]

    @property
    def serves(self) -> bool:
        return bool(self.guard.publisher.state())

    def distrust(self) -> None:
        keys.distrust(self.guard, self.old, "leaked", "carol")


@cache
def _rotated() -> Path:
    folder = Path(mkdtemp(prefix="guard-test-killed-"))
    registry = Registry(folder)
    registry.upload("model")
    guard = registry.place.guard
    path = guard.settings.data_dir / "keys" / "next.pem"
    keys.make_key(path)
    keys.trust(guard, str(path), "yearly", "carol")
    guard.engine.dispose()
    return folder


class Countdown:
    """Kills the process at the point with a number; `points` counts those that were passed."""

    def __init__(self, number: int) -> None:
        self.number, self.points = number, 0

    def point(self, *_: object, **__: object) -> None:
        self.points += 1
        if self.points == self.number:
            raise Killed

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **more: Any) -> Any:
            self.point()
            made = work(*given, **more)
            self.point()
            return made

        return wrapped


def each_commit_and_file(guard: Guard, patched: pytest.MonkeyPatch, countdown: Countdown) -> None:
    """Points before and after whatever outlives the process: commits, checkpoints, the key file."""
    event.listen(guard.engine, "commit", countdown.point)  # before; the next one is after it
    patched.setattr(TrustedKeys, "save", countdown.around(TrustedKeys.save))
    append = _checkpoints.CheckpointStore.append
    patched.setattr(_checkpoints.CheckpointStore, "append", countdown.around(append))


def test_a_key_counts_no_more_from_the_act_that_distrusts_it_on_wherever_the_process_dies(
    tmp_path: Path,
) -> None:
    number, done, said = 0, False, []
    while not done:
        number += 1
        rotated = Rotated(tmp_path / str(number))
        done = dies(rotated.guard, number, rotated.distrust)
        said.append(("distrust", rotated.old) in rotated.acts)

        assert (rotated.old in rotated.guard.trusted.keys) is not said[-1]
        assert rotated.old in rotated.file.keys or said[-1], "no key is lost without an act"
        assert standing(rotated.guard, whole=True).broken == ()
        reconcile_guard(rotated.guard)
        assert (rotated.old in rotated.file.keys) is not said[-1], "the file follows"
        assert rotated.serves is not said[-1]
        if not said[-1]:
            rotated.distrust()
            reconcile_guard(rotated.guard)
            assert not rotated.serves
        assert _trust.left_over(rotated.guard) == []
        assert rotated.acts.count(("distrust", rotated.old)) == 1
        assert standing(rotated.guard, whole=True).broken == ()
    assert said.count(False) > 3, "it was killed before the act"
    assert said.count(True) > 3, "and behind it"


def dies(guard: Guard, number: int, work: Callable[[], Any]) -> bool:
    """Let a process do something and die at the point with this number; whether it lived."""
    countdown = Countdown(number)
    with pytest.MonkeyPatch.context() as patched:
        each_commit_and_file(guard, patched, countdown)
        try:
            work()
        except Killed:
            return False
        finally:
            event.remove(guard.engine, "commit", countdown.point)
    return True


def test_the_same_command_completes_what_a_killed_one_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotated = Rotated(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(keys, "complete", killed)
        with pytest.raises(Killed):
            rotated.distrust()
    (left,) = [problem for problem in verify(rotated.guard) if "file of trusted keys" in problem]
    assert rotated.old[:16] in left

    rotated.distrust()

    assert rotated.old not in rotated.file.keys
    assert rotated.acts.count(("distrust", rotated.old)) == 1
    assert not [problem for problem in verify(rotated.guard) if "file of trusted keys" in problem]


def test_a_distrusted_key_that_is_put_back_into_the_file_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotated = Rotated(tmp_path)
    path, kept = rotated.guard.settings.trusted_keys_file, tmp_path / "kept.json"
    shutil.copy(path, kept)
    rotated.distrust()
    shutil.copy(kept, path)
    assert rotated.old not in rotated.guard.trusted.keys

    with monkeypatch.context() as patched:
        patched.setattr(TrustedKeys, "save", unwritable)
        reconcile_guard(rotated.guard)
    assert "distrusted_key_in_file" in rotated.alarms
    assert not rotated.serves
    reconcile_guard(rotated.guard)

    assert "distrusted_key_in_file" not in rotated.alarms
    assert rotated.old not in rotated.file.keys


def test_a_distrusted_key_is_brought_back_by_another_key_and_never_by_itself(
    tmp_path: Path,
) -> None:
    rotated = Rotated(tmp_path)
    first = rotated.guard.settings.data_dir / "keys" / "signing.pem"
    rotated.distrust()
    itself = rotated.open("signing.pem")
    with pytest.raises(InputError, match="own signature does not bring it back"):
        keys.trust(itself, str(first), "I am fine", "mallory")
    assert rotated.old not in rotated.guard.trusted.keys

    keys.trust(rotated.guard, str(first), "it never leaked", "carol")

    assert rotated.old in rotated.guard.trusted.keys
    assert verify(rotated.guard) == []
    rotated.distrust()
    assert rotated.old not in rotated.guard.trusted.keys


def test_an_act_that_nobody_may_sign_distrusts_nobody(tmp_path: Path) -> None:
    """Whoever can write to the database only cannot switch the guard off."""
    rotated = Rotated(tmp_path)
    path = tmp_path / "stranger.pem"
    stranger = Signer.load_or_create(path)
    for kind, named in (("trust", {stranger.key_id: stranger.public.hex()}), ("distrust", {})):
        act = keys._act(rotated.guard, kind, rotated.old, "mine now", "mallory", named)
        with transaction(rotated.guard.engine) as session:
            append(rotated.guard, session, act, stranger)

    assert rotated.old in rotated.guard.trusted.keys
    assert stranger.key_id not in rotated.guard.trusted.keys


@pytest.mark.parametrize("named", ["zz", "ab" * 32])
def test_an_act_that_names_no_key_or_another_one_brings_nothing_back(
    tmp_path: Path, named: str
) -> None:
    rotated = Rotated(tmp_path)
    path, kept = rotated.guard.settings.trusted_keys_file, tmp_path / "kept.json"
    shutil.copy(path, kept)
    rotated.distrust()
    shutil.copy(kept, path)
    act = keys._act(rotated.guard, "trust", rotated.old, "odd", "carol", {rotated.old: named})
    with transaction(rotated.guard.engine) as session:
        append(rotated.guard, session, act)

    assert rotated.old not in rotated.guard.trusted.keys


def test_a_ledger_of_a_release_without_acts_is_opened_by_the_key_that_is_named(
    tmp_path: Path,
) -> None:
    rotated = Rotated(tmp_path)
    rotated.guard.settings.trusted_keys_file.unlink()
    (rotated.guard.settings.checkpoint_dir / "checkpoints.jsonl").unlink()
    with closing(sqlite3.connect(tmp_path / "data/guard.db")) as db:
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            db.execute(f"DROP TRIGGER {name}")
        db.execute("DELETE FROM ledger_acts")
        db.execute("DELETE FROM checkpoint_notes")
        db.commit()

    key_id = keys.trust(
        rotated.guard, str(rotated.guard.settings.signing_key_file), "emptied", "carol"
    )

    assert list(rotated.guard.trusted.keys) == [key_id]
    assert [kind for kind, _ in rotated.acts] == ["open", "trust"]
    assert standing(rotated.guard, whole=True).broken == ()


def test_the_last_key_is_named_anew_wherever_the_process_dies(tmp_path: Path) -> None:
    """The file was emptied: nothing is trusted before an act, and naming the key again heals."""
    number, done = 0, False
    while not done:
        number += 1
        rotated = Rotated(tmp_path / str(number))
        path = str(rotated.guard.settings.signing_key_file)
        rotated.guard.settings.trusted_keys_file.unlink()
        before = len(standing(rotated.guard, patient=True).acts)

        done = dies(rotated.guard, number, partial(keys.trust, rotated.guard, path, "x", "carol"))

        if rotated.file.keys:
            assert len(standing(rotated.guard, patient=True).acts) > before
        else:
            keys.trust(rotated.guard, path, "x", "carol")
        keys.trust(rotated.guard, rotated.old, "the older one", "carol")
        reconcile_guard(rotated.guard)
        assert verify(rotated.guard) == []
    assert number > 4


def unwritable(*_: object, **__: object) -> None:
    raise InputError("The key file cannot be used: read-only file system.", code="key_file")
