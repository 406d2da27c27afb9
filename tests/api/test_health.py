"""Alive, ready, counted; and what starting the API loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from guard.api.app import create_app
from guard.api.problems import STATUS_OF_CLASS, status_of
from guard.bootstrap import open_guard
from guard.core import errors
from guard.flow.context import Guard
from guard.settings import Secret, Settings
from guard.store import alarms, dead_letters, outbox
from guard.store.migrate import head
from guard.store.session import transaction
from tests.api.conftest import TOKEN, Clock
from tests.api.test_events import refused
from tests.api.test_scans import make_scan, make_verdict


def test_alive_needs_nothing(anyone: TestClient) -> None:
    for path in ("/health/live", "/healthz"):
        assert anyone.get(path).json() == {"status": "live"}


def test_ready_with_a_migrated_database(anyone: TestClient) -> None:
    assert anyone.get("/health/ready").json() == {"status": "ready"}


def test_the_schema_is_shown_to_who_has_a_token(client: TestClient) -> None:
    assert client.get("/health/ready").json() == {"status": "ready", "schema": head()}


@pytest.mark.threat("C26")
def test_not_ready_with_an_empty_database(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, webhook_token=Secret("t"))
    with TestClient(create_app(open_guard(settings))) as client:
        hidden = client.get("/health/ready")
        answer = client.get("/health/ready", headers={"Authorization": "Bearer t"})

        refused(hidden, 503, "api_not_ready")
        assert "upgrade" not in hidden.text
        refused(answer, 503, "schema_differs")
        assert "guard db upgrade" in answer.json()["detail"]
        assert client.get("/health/live").status_code == 200


@pytest.mark.threat("C26")
def test_not_ready_without_a_database() -> None:
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:9/none")
    with TestClient(create_app(open_guard(settings))) as client:
        refused(client.get("/health/ready"), 503, "api_not_ready")


def samples(page: str) -> dict[str, float]:
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_metrics_count_what_there_is(client: TestClient, guard: Guard, clock: Clock) -> None:
    make_verdict(guard, make_scan(guard, 1))
    make_scan(guard, 2)
    with transaction(guard.engine) as session:
        outbox.add(session, "inspect", {"scan_id": "x"}, clock.time)
        outbox.add(session, "inspect", {"scan_id": "y"}, clock.time, delay_seconds=3600)
        dead_letters.add(session, "inspect", {}, "why", clock.time)
        alarms.raise_(session, 'odd"kind\\', "subject", "detail", clock.time)
    clock.pass_time(40)

    answer = client.get("/metrics")
    found = samples(answer.text)

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert found['guard_scans{state="queued"}'] == 2
    assert found['guard_scans{state="failed"}'] == 0
    assert found['guard_verdict_total{verdict="held"}'] == 1
    assert found['guard_verdict_total{verdict="cleared"}'] == 0
    assert (found["guard_outbox_unsent"], found["guard_outbox_oldest_seconds"]) == (2, 40)
    assert (found["guard_dead_letters"], found["guard_alarms_open"]) == (1, 1)
    assert found['guard_alarms_open_by_kind{kind="odd\\"kind\\\\"}'] == 1


@pytest.mark.row(51)
def test_the_page_has_these_metrics_and_no_others(client: TestClient) -> None:
    page = client.get("/metrics").text.splitlines()

    assert [line.split(" ", 2)[2] for line in page if line.startswith("# TYPE")] == [
        "guard_scans gauge",
        "guard_nominations gauge",
        "guard_verdict_total counter",
        "guard_webhook_total counter",
        "guard_outbox_unsent gauge",
        "guard_outbox_oldest_seconds gauge",
        "guard_dead_letters gauge",
        "guard_alarms_open gauge",
        "guard_alarms_open_by_kind gauge",
        "guard_verdicts_expiring gauge",
        "guard_verdicts_expired gauge",
        "guard_gate_warns gauge",
        "guard_let_through gauge",
        "guard_build_info gauge",
        "guard_queue_depth gauge",
        "guard_queue_oldest_seconds gauge",
        "guard_stage_running gauge",
        "guard_scan_running_oldest_seconds gauge",
        "guard_canary_ok gauge",
        "guard_canary_workers gauge",
        "guard_canary_timestamp_seconds gauge",
        "guard_served gauge",
        "guard_served_behind gauge",
        "guard_served_unvetted gauge",
        "guard_drift_total counter",
        "guard_verdicts_ending gauge",
        "guard_waiver_active gauge",
        "guard_checkpoint_timestamp_seconds gauge",
        "guard_scan_seconds histogram",
        "guard_detector_seconds histogram",
        "guard_detector_p_value histogram",
        "guard_detector_error_total counter",
        "guard_stage_error_total counter",
        "guard_refusal_total counter",
        "guard_repair_total counter",
    ]


def test_every_metric_family_is_described(client: TestClient) -> None:
    page = client.get("/metrics").text.splitlines()
    names = {line.split("{")[0].split(" ")[0] for line in page if not line.startswith("#")}

    for name in names:
        assert any(line.startswith(f"# TYPE {name} ") for line in page)
        assert any(line.startswith(f"# HELP {name} ") for line in page)


def test_answers_may_not_be_sniffed_or_cached(anyone: TestClient) -> None:
    headers = anyone.get("/health/live").headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_the_description_of_the_api_can_be_made(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    assert {
        "/events/s3",
        "/scans",
        "/scans/{scan_id}",
        "/verdicts/{verdict_id}",
        "/metrics",
    } <= set(paths)


def test_a_crash_tells_nothing_about_the_inside(guard: Guard) -> None:
    app = create_app(guard)

    @app.get("/crash")
    def crash() -> None:
        raise RuntimeError("secret detail")

    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/crash", headers={"Authorization": f"Bearer {TOKEN}"})

    refused(answer, 500, "internal")
    assert "secret detail" not in answer.text


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.GuardError)
    ],
)
def test_every_deliberate_error_has_a_status(kind: type[errors.GuardError]) -> None:
    assert status_of(kind("sentence")) in {400, 409, 412, 500, 503}
    assert STATUS_OF_CLASS[errors.GuardError] == 500


LOADED = """
import json, sys
from guard.api.app import create_app, from_settings
app = from_settings()
app.openapi()
print(json.dumps(sorted(name for name in sys.modules if name in ("torch", "numpy", "timm", "celery", "PIL", "scipy"))))
"""  # noqa: E501 - a script of its own


def test_the_api_starts_without_torch(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        capture_output=True,
        check=True,
        text=True,
        env={"GUARD_DATA_DIR": str(tmp_path), "PATH": ""},
    )

    assert json.loads(done.stdout) == []
