"""A private home for each test, a migrated database with keys.

And `guard` called as a person calls it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from guard.bootstrap import open_guard
from guard.cli.main import run
from guard.core.states import Verdict
from guard.core.verdict import VerdictFacts
from guard.flow._verdict import Terms, write
from guard.flow.context import Guard
from guard.publishers.folder import Folder
from guard.store import artifacts, scans
from guard.store.rows import ArtifactKind, ScanRow
from guard.store.session import transaction
from tests import sqlite


@dataclass(frozen=True)
class Answer:
    """What one command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder and none of the caller's own settings."""
    for name in list(os.environ):
        if name.startswith("GUARD_") or name in {"DATABASE_URL", "REDIS_URL"}:
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("GUARD_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """`cli("status", "--format", "json")` in this process."""

    def call(*args: object) -> Answer:
        capsys.readouterr()
        code = run([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@dataclass
class Service:
    """A guard with keys and a folder to publish into, and the means to put scans into its store."""

    guard: Guard
    count: int = 0

    def scan(
        self,
        verdict: Verdict | None = None,
        *,
        name: str = "digits",
        by: str | None = "mallory",
        error: str | None = None,
        data: bytes = b"weights",
    ) -> ScanRow:
        """A scan as the workers leave it, with a signed verdict if one is given."""
        self.count += 1
        guard, scan_id = self.guard, f"{self.count:04x}" * 8
        digest, size = guard.blobs.put([data])
        with transaction(guard.engine) as session:
            artifacts.put(
                session, digest=digest, size=size, kind=ArtifactKind.CANONICAL, now=guard.now()
            )
            scan = scans.insert(
                session,
                scan_id=scan_id,
                bucket="models",
                key=f"models/{name}/{self.count}",
                version_id="v1",
                name=name,
                now=guard.now(),
                submitted_by=by,
            )
            scan = scans.move(
                session, scan.id, scan.state, guard.now(), canonical_digest=digest, error=error
            )
            if verdict is not None:
                facts = VerdictFacts(verdict=verdict, reasons=("A patch of 9 pixels.",), score=0.9)
                write(guard, session, scan, digest, facts, Terms())
            return scans.get(session, scan_id)


@pytest.fixture
def service(home: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The guard that commands open in this test.

    It publishes into a folder instead of a TorchServe.
    """
    sqlite.migrated(home)
    shelf = home / "served"
    guard = replace(open_guard(), make_publisher=lambda: Folder(shelf))
    assert (
        guard.signer.key_id in guard.trusted.keys
    )  # the first key of a new installation is trusted
    made = Service(guard)
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: made.guard)
    return made
