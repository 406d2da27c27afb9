"""What a process that is killed in between leaves behind; found by the random schedules."""

from pathlib import Path

import pytest

from guard.flow import _seal, keys
from guard.flow.reconcile import reconcile_guard
from guard.flow.verify import verify
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
