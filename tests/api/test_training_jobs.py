"""Sifts and retrainings are asked for, followed and cancelled over HTTP."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from guard.api.app import create_app
from guard.core.evidence import CleanSetFacts
from guard.core.roles import Role
from guard.core.states import ScanState
from guard.core.training_jobs import JobState
from guard.core.trainset import TrainingSetFacts
from guard.flow.context import Guard
from guard.policy.rules import RetrainRule
from guard.store import artifacts, cleansets, scans, training_jobs, trainsets
from guard.store.rows import ArtifactKind, TrainingSetRow
from guard.store.session import transaction
from tests import people
from tests.api.conftest import TOKEN
from tests.api.test_events import refused
from tests.flow.place import MANIFEST

MODEL, SET, CLEAN = "a" * 64, "b" * 64, "c" * 64
WANTED = {"model": "m", "training_set": "digits", "method": "sifted", "parameters": {"epochs": 3}}


@pytest.fixture
def scene(guard: Guard) -> Guard:
    """A model with a stored training set and a clean set, and a policy with a retrainer."""
    with transaction(guard.engine) as session:
        artifacts.put(
            session,
            digest=MODEL,
            size=1,
            kind=ArtifactKind.CANONICAL,
            manifest=MANIFEST.to_dict(),
            now=guard.now(),
        )
        scans.insert(
            session,
            scan_id="f" * 32,
            bucket="models",
            key="models/m/model.safetensors",
            version_id="v1",
            name="m",
            now=guard.now(),
        )
        for state in (ScanState.INSPECTING, ScanState.DETECTING):
            scans.move(session, "f" * 32, state, guard.now(), canonical_digest=MODEL)
        clean = CleanSetFacts(
            name="squares",
            digest=CLEAN,
            classes=5,
            channels=1,
            height=8,
            width=8,
            per_class=80,
            search=200,
            calibration=100,
            holdout=100,
        )
        cleansets.put(session, clean, guard.now())
        facts = TrainingSetFacts(
            uri="/data/digits.npz",
            digest=SET,
            images=100,
            total=100,
            channels=1,
            height=8,
            width=8,
            class_names=("0", "1", "2", "3", "4"),
            per_class=(20,) * 5,
        )
        row = TrainingSetRow(
            name="digits", uri=facts.uri, class_names=(), facts=facts, added_at=guard.now()
        )
        trainsets.put(session, row)
    rule = RetrainRule(methods=("sifted",), budget_seconds=60.0, max_open=2)
    return replace(guard, policy=replace(guard.policy, retrain=rule))


@pytest.fixture
def caller(scene: Guard) -> Iterator[TestClient]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    app = create_app(scene)
    with TestClient(app, raise_server_exceptions=False, headers=headers) as client:
        yield client


def test_a_retraining_is_asked_for_followed_and_cancelled(caller: TestClient, scene: Guard) -> None:
    taken = caller.post("/retrainings", json=WANTED)
    job = taken.json()
    assert taken.status_code == 202, job
    assert taken.headers["Location"] == f"/retrainings/{job['id']}"
    assert (job["state"], job["model"], job["training_set"]["digest"]) == ("queued", MODEL, SET)
    assert (job["principal"], job["budget_seconds"]) == ("api", 60.0)
    assert "/data" not in taken.text  # where a stored set lies is nobody's business
    assert caller.post("/retrainings", json=WANTED).json()["id"] == job["id"]

    with transaction(scene.engine) as session:
        lease = training_jobs.claim(session, job["id"], now=scene.now(), seconds=60)
        assert lease is not None
        training_jobs.keep(
            session, lease, scene.now(), done=0.5, note="training pass 2 of 3", seconds_left=30.0
        )
    shown = caller.get(f"/retrainings/{job['id'][:8]}").json()
    assert (shown["state"], shown["done"], shown["seconds_left"]) == ("running", 0.5, 30.0)
    assert shown["result"] is None
    assert [one["id"] for one in caller.get("/retrainings").json()["jobs"]] == [job["id"]]
    assert caller.get("/sifts").json() == {"jobs": []}
    refused(caller.get(f"/sifts/{job['id']}"), 404, "unknown_training_job")

    ending = caller.post(f"/retrainings/{job['id']}/cancel")
    assert (ending.status_code, ending.json()["cancelled_by"]) == (202, "api")
    refused(caller.post("/retrainings", json=WANTED), 409, "training_job_ending")
    with transaction(scene.engine) as session:
        training_jobs.end(session, lease, JobState.CANCELLED, scene.now(), code="job_cancelled")
    refused(caller.post(f"/retrainings/{job['id']}/cancel"), 409, "training_job_ended")


def test_a_sift_is_asked_for_and_its_report_is_read(caller: TestClient, scene: Guard) -> None:
    wanted = {"model": MODEL, "training_set": "digits"}
    job = caller.post("/sifts", json=wanted).json()
    assert (job["kind"], job["method"]) == ("sift", "")
    with transaction(scene.engine) as session:
        lease = training_jobs.claim(session, job["id"], now=scene.now(), seconds=60)
        assert lease is not None
        report = {"verdict": "nothing", "suspects_total": 0}
        training_jobs.end(session, lease, JobState.DONE, scene.now(), result=report)

    assert caller.get(f"/sifts/{job['id']}").json()["result"] == report
    other = caller.post("/sifts", json={**wanted, "seed": 1}).json()
    assert caller.post(f"/sifts/{other['id']}/cancel").json()["state"] == "cancelled"
    refused(caller.post(f"/sifts/{other['id']}/cancel"), 409, "training_job_ended")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"method": "d_st"}, 403, "retrain_not_allowed"),
        ({"model": "nobody"}, 404, "unknown_scan"),
        ({"model": "0" * 64}, 404, "unknown_artifact"),
        ({"training_set": "never-added"}, 400, "trainset_unknown"),
        ({"parameters": {"epochs": [1]}}, 400, "bad_request"),
        ({"wishes": 3}, 400, "bad_request"),
    ],
)
def test_what_cannot_be_done_is_refused(
    caller: TestClient, changes: dict[str, Any], status: int, code: str
) -> None:
    refused(caller.post("/retrainings", json={**WANTED, **changes}), status, code)


def test_only_so_many_jobs_are_open_at_once(caller: TestClient) -> None:
    for seed in range(2):
        assert caller.post("/retrainings", json={**WANTED, "seed": seed}).status_code == 202
    refused(caller.post("/retrainings", json={**WANTED, "seed": 2}), 429, "too_many_training_jobs")


def test_the_roles_are_those_of_the_command_line(caller: TestClient, scene: Guard) -> None:
    given = {
        role: people.give(scene, f"p-{role}", role, prefixes=prefixes)
        for role, prefixes in (
            (Role.VIEWER, ()),
            (Role.UPLOADER, ("models/models/other/",)),
            (Role.REVIEWER, ()),
        )
    }
    job = caller.post("/retrainings", json=WANTED).json()
    for token in given.values():
        headers = {"Authorization": f"Bearer {token}"}
        assert caller.get(f"/retrainings/{job['id']}", headers=headers).status_code == 200
        for path in ("/retrainings", f"/retrainings/{job['id']}/cancel"):
            refused(caller.post(path, json=WANTED, headers=headers), 403, "forbidden")
    no_token = {"Authorization": "Bearer wrong"}
    refused(caller.get(f"/retrainings/{job['id']}", headers=no_token), 401, "unauthorised")
