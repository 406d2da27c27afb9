"""`guard retrain --submit`: the service does it, `guard status` shows it, `--cancel` ends it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from guard.core.training_jobs import JobState
from guard.store import training_jobs
from guard.store.session import transaction
from tests.cli.conftest import Answer
from tests.flow.jobs import Service

Cli = Callable[..., Answer]
POLICY = """
[policy]
name = "retraining"
[detectors.weight_statistics]
[retrain]
methods = ["sifted"]
budget_seconds = 900
"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service(tmp_path)
    (tmp_path / "policy.toml").write_text(POLICY)
    monkeypatch.setenv("GUARD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("GUARD_POLICY_FILE", str(tmp_path / "policy.toml"))
    return made


def submit(cli: Cli, model: object, *more: object) -> Answer:
    return cli("retrain", "stripes", "--like", model, "--method", "sifted", "--submit", *more)


def test_a_job_is_asked_for_by_name_digest_or_file_shown_and_cancelled(
    cli: Cli, service: Service
) -> None:
    answer = submit(cli, "bad", "--set", "epochs=3", "--format", "json")
    job = json.loads(answer.out)
    assert (answer.code, job["state"], job["parameters"]) == (0, "queued", {"epochs": 3})
    assert job["budget_seconds"] == 900
    digest = service.scan(service.scan_id).canonical_digest
    for model in (digest, service.scan_id[:8], service.files / "bad"):
        again = submit(cli, model, "--set", "epochs=3", "--format", "json")
        assert json.loads(again.out)["id"] == job["id"], again.err
    assert "is queued" in submit(cli, "bad", "--set", "epochs=3").out

    guard = service.guard
    with transaction(guard.engine) as session:
        lease = training_jobs.claim(session, job["id"], now=guard.now(), seconds=1e9)
        assert lease is not None
        training_jobs.keep(session, lease, guard.now(), done=0.5, note="x", seconds_left=300.0)
    shown = cli("status")
    assert shown.code == 0
    line = next(line for line in shown.out.splitlines() if job["id"][:12] in line)
    for word in ("retrain sifted", "stripes", "running", "50%", "5 min"):
        assert word in line
    assert cli("status", job["id"][:8]).code == 2
    assert json.loads(cli("status", "--jobs", "--format", "json").out)[0]["done"] == 0.5

    assert "ends within seconds" in cli("retrain", "--cancel", job["id"]).out
    assert "ending" in cli("status", job["id"]).out
    with transaction(guard.engine) as session:
        training_jobs.end(
            session, lease, JobState.CANCELLED, guard.now(), error="Cancelled.", code="x"
        )
    followed = cli("status", job["id"], "--watch", "--format", "json")
    assert (followed.code, json.loads(followed.out)["state"]) == (2, "cancelled")
    assert '"event": "job"' in followed.err
    again = cli("retrain", "--cancel", job["id"], "--format", "json")
    assert (again.code, "is cancelled already" in again.err) == (4, True)
    assert job["id"][:12] not in cli("status").out


def test_a_job_that_nobody_began_is_cancelled_at_once(cli: Cli, service: Service) -> None:
    job = json.loads(submit(cli, "bad", "--format", "json").out)
    assert "is cancelled" in cli("retrain", "--cancel", job["id"][:12]).out
    assert "cancelled" in cli("status", "--jobs").out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--submit", "--out", "x"), "--out goes with a training here only"),
        (("--digest", "0" * 64), "--digest goes with --submit only"),
        (("--submit", "--format", "html"), "table or json"),
        ((), "--out is missing"),
        (("--submit", "--cleanset", "never-added"), "No clean set is called"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    cli: Cli, service: Service, args: tuple[str, ...], said: str
) -> None:
    answer = cli("retrain", "stripes", "--like", "bad", "--method", "sifted", *args)
    assert answer.code == 4
    assert said in answer.err


def test_what_is_missing_is_named(cli: Cli, service: Service) -> None:
    assert "--like is missing" in cli("retrain", "stripes").err
    assert "--method is missing" in cli("retrain", "stripes", "--like", "m").err
    assert "There is no training job" in cli("retrain", "--cancel", "nothing").err
    assert cli("status", "nothing").code == 4
