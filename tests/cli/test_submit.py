"""`guard submit`: into a real bucket, or a sentence that says why not."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from guard.core.states import Verdict
from guard.core.verdict import VerdictFacts
from guard.flow._verdict import Terms, write
from guard.flow.context import Guard
from guard.store import artifacts, nominations, outbox, scans
from guard.store.rows import ArtifactKind, NominationState
from guard.store.session import reading, transaction
from tests.cli.conftest import Answer, Service
from tests.services import shared_weed

Cli = Callable[..., Answer]


@pytest.fixture
def intake(service: Service, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """The service's guard with a bucket of a real SeaweedFS as its intake."""
    bucket = shared_weed().new_bucket()
    settings = replace(
        service.guard.settings, intake_bucket=bucket.name, intake_buckets=(bucket.name,)
    )
    guard = replace(service.guard, settings=settings, make_bucket=lambda _name: bucket)
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: guard)
    return guard


def model(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return folder


def test_a_folder_is_uploaded_with_its_manifest_and_nominated(
    intake: Guard, cli: Cli, tmp_path: Path
) -> None:
    answer = cli("submit", model(tmp_path), "--format", "json")
    nomination = json.loads(answer.out)["nomination"]

    assert answer.code == 0
    keys = {facts.key for facts in intake.make_bucket("").latest()}
    assert keys == {"models/digits/model.safetensors", "models/digits/config.json"}
    with reading(intake.engine) as session:
        row = nominations.get(session, nomination)
        assert row is not None
        assert row.key == "models/digits/model.safetensors"
        assert row.version_id
        assert [message.task for message in outbox.due(session, intake.now(), 10)] == ["receive"]


def test_a_preprocessors_file_goes_with_the_model_it_belongs_to(
    intake: Guard, cli: Cli, tmp_path: Path
) -> None:
    folder = model(tmp_path)
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "config.json").write_text('{"model_type": "vit"}')

    assert cli("submit", folder, "--format", "json").code == 0

    keys = {facts.key.rpartition("/")[2] for facts in intake.make_bucket("").latest()}
    assert keys == {"config.json", "preprocessor_config.json", "model.safetensors"}


def test_shards_are_uploaded_before_the_index_that_is_nominated(
    intake: Guard, cli: Cli, tmp_path: Path
) -> None:
    folder = model(tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")

    answer = cli("submit", folder, "--format", "json")

    assert answer.code == 0
    keys = {facts.key.rpartition("/")[2] for facts in intake.make_bucket("").latest()}
    assert keys == {item.name for item in folder.iterdir()}
    with reading(intake.engine) as session:
        row = nominations.get(session, json.loads(answer.out)["nomination"])
    assert row.key == "models/digits/model.safetensors.index.json"


def test_an_object_that_is_there_is_nominated_by_name(intake: Guard, cli: Cli) -> None:
    answer = cli("submit", f"s3://{intake.settings.intake_bucket}/models/x/model.safetensors")

    assert answer.code == 0
    assert "guard status" in answer.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("s3://",),
        ("s3://bucket",),
        ("s3://bucket/key", "--name", "x"),
        ("file.pt", "--version-id", "v"),
        ("nothing.pt",),
    ],
)
def test_what_cannot_be_submitted_is_a_usage_error(
    arguments: tuple[str, ...], intake: Guard, cli: Cli
) -> None:
    answer = cli("submit", *arguments)

    assert (answer.code, answer.out) == (4, "")


def told(guard: Guard) -> str:
    """The nomination that the outbox speaks of, once there is one."""
    while True:
        with reading(guard.engine) as session:
            due = outbox.due(session, guard.now(), 10)
        if due:
            return str(due[0].payload["nomination_id"])
        time.sleep(0.02)


def test_watching_waits_for_the_scan_and_its_verdict(
    intake: Guard, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guard.cli._scans.POLL_SECONDS", 0.02)
    monkeypatch.setattr("guard.cli.submit.POLL_SECONDS", 0.02)

    def work() -> None:
        """What the workers would do, in short."""
        nomination = told(intake)
        digest, size = intake.blobs.put([b"weights"])
        with transaction(intake.engine) as session:
            artifacts.put(
                session, digest=digest, size=size, kind=ArtifactKind.UPLOAD, now=intake.now()
            )
            scan = scans.insert(
                session,
                scan_id="ab" * 16,
                bucket="b",
                key="k",
                version_id="1",
                name="digits",
                now=intake.now(),
            )
            nominations.settle(session, nomination, NominationState.ACCEPTED, scan_id=scan.id)
            facts = VerdictFacts(verdict=Verdict.UNVETTABLE, reasons=("A pickle.",))
            write(intake, session, scan, digest, facts, Terms())

    worker = threading.Thread(target=work)
    worker.start()
    answer = cli("submit", model(tmp_path), "--watch", "--format", "json")
    worker.join()

    assert answer.code == 3
    assert json.loads(answer.out)["verdict"] == "unvettable"


def test_an_upload_that_is_refused_says_why(intake: Guard, cli: Cli, tmp_path: Path) -> None:
    def work() -> None:
        nomination = told(intake)
        with transaction(intake.engine) as session:
            nominations.settle(
                session, nomination, NominationState.REFUSED, reason="The file is too large."
            )

    worker = threading.Thread(target=work)
    worker.start()
    answer = cli("submit", model(tmp_path), "--watch")
    worker.join()

    assert answer == Answer(3, "", "guard: The file is too large.\n")


def test_nobody_working_is_said_after_a_while(
    intake: Guard, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "guard.cli.submit.WAIT_SECONDS", -intake.settings.manifest_grace_seconds + 0.1
    )
    answer = cli("submit", model(tmp_path), "--watch")

    assert answer.code == 2
    assert "worker" in answer.err
