"""Every route is known to leave an act in the ledger's chain, or to change nothing there."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from guard.api.app import ROUTES, create_app
from guard.core.roles import Act, Role
from guard.core.training_jobs import JobKind
from guard.flow import training_jobs
from guard.flow._seal import tend
from guard.flow._standing import standing
from guard.flow.training_jobs import Asked
from tests import people
from tests.cli.test_every_command import (
    Scene,
    alarm,
    delivery,
    hook,
    joined,
    letter,
    project,
    trainable,
)
from tests.flow.test_waivers import FINDING

READING = {
    "GET /alarms",
    "GET /alarms/{alarm_id}",
    "GET /dead-letters",
    "GET /dead-letters/{letter_id}",
    "GET /docs",
    "GET /healthz",
    "GET /hooks",
    "GET /hooks/deliveries",
    "GET /hooks/{hook_id}",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
    "GET /openapi.json",
    "GET /nominations/{nomination_id}",
    "GET /retrainings",
    "GET /retrainings/{job_id}",
    "GET /projects",
    "GET /projects/{name}",
    "GET /scans",
    "GET /scans/{scan_id}",
    "GET /sifts",
    "GET /sifts/{job_id}",
    "GET /verdicts/{verdict_id}",
    "GET /waivers",
    "GET /waivers/{waiver_id}",
}
#: An event is a notice by the object store, which is no principal: it has the webhook's token or
#: key and only nominates what lies in a bucket already. What is kept of it is the nomination.
NOTICES = {"POST /events/s3"}
#: What browsers, and their identity provider, sign in and out with; `test_sessions.py` and
#: `test_sign_off.py` find the acts in the chain.
SIGNING = {
    "GET /console/login",
    "GET /console/login/oidc",
    "GET /console/login/oidc/callback",
    "POST /console/login",
    "POST /console/logout",
    "POST /oidc/backchannel-logout",
}


def ask_for(scene: Scene) -> dict[str, str]:
    return {"model": "fraud", "training_set": trainable(scene)}


BOB = {"kind": "principal", "member": "bob", "role": "uploader"}
#: Which act a route leaves, by a principal of which role; the path's id, and the body.
DOINGS: dict[str, tuple[Act, Role, Callable[[Scene], str], Callable[[Scene], object]]] = {
    "POST /alarms/{alarm_id}/acknowledge": (
        Act.ACKNOWLEDGE,
        Role.OPERATOR,
        alarm,
        lambda _: {"reason": "it is known"},
    ),
    "POST /dead-letters/{letter_id}/retry": (Act.RETRY, Role.OPERATOR, letter, lambda _: None),
    "POST /hooks": (
        Act.ADD_HOOK,
        Role.OPERATOR,
        lambda _: "",
        lambda _: {"kind": "webhook", "address": "https://a.example/in"},
    ),
    "POST /hooks/deliveries/{delivery_id}/retry": (
        Act.TEST_HOOK,
        Role.OPERATOR,
        delivery,
        lambda _: None,
    ),
    "POST /hooks/{hook_id}/remove": (Act.REMOVE_HOOK, Role.OPERATOR, hook, lambda _: None),
    "POST /hooks/{hook_id}/test": (Act.TEST_HOOK, Role.OPERATOR, hook, lambda _: None),
    "POST /projects": (
        Act.CREATE_PROJECT,
        Role.OPERATOR,
        lambda _: "",
        lambda _: {"name": "vision", "prefix": "models/vision", "scans_a_day": 5},
    ),
    "POST /projects/{name}": (
        Act.CHANGE_PROJECT,
        Role.OPERATOR,
        project,
        lambda _: {"scans_a_day": None, "priority": "high"},
    ),
    "POST /projects/{name}/members": (Act.ADD_MEMBER, Role.OPERATOR, project, lambda _: BOB),
    "POST /projects/{name}/members/remove": (
        Act.REMOVE_MEMBER,
        Role.OPERATOR,
        joined,
        lambda _: BOB,
    ),
    "POST /retrainings": (
        Act.RETRAIN,
        Role.OPERATOR,
        lambda _: "",
        lambda scene: {**ask_for(scene), "method": "sifted"},
    ),
    "POST /retrainings/{job_id}/cancel": (
        Act.CANCEL_JOB,
        Role.OPERATOR,
        lambda scene: job(scene, JobKind.RETRAIN),
        lambda _: None,
    ),
    "POST /scans": (
        Act.SUBMIT,
        Role.OPERATOR,
        lambda _: "",
        lambda _: {"bucket": "models", "key": "models/new/m.pt"},
    ),
    "POST /sifts": (Act.SIFT, Role.OPERATOR, lambda _: "", ask_for),
    "POST /sifts/{job_id}/cancel": (
        Act.CANCEL_JOB,
        Role.OPERATOR,
        lambda scene: job(scene, JobKind.SIFT),
        lambda _: None,
    ),
    "POST /waivers": (
        Act.WAIVE,
        Role.REVIEWER,
        lambda _: "",
        lambda scene: {
            "artifact": scene.digest,
            "finding": FINDING,
            "reason": "a square",
            "until": "2026-12-11",
        },
    ),
    "POST /waivers/{waiver_id}/approve": (
        Act.APPROVE_WAIVER,
        Role.REVIEWER,
        lambda scene: scene.ask().waiver_id,
        lambda _: None,
    ),
    "POST /waivers/{waiver_id}/revoke": (
        Act.REVOKE_WAIVER,
        Role.OPERATOR,
        lambda scene: scene.ask().waiver_id,
        lambda _: {"reason": "over"},
    ),
}


def job(scene: Scene, kind: JobKind) -> str:
    """The id of a job that waits."""
    method = "sifted" if kind is JobKind.RETRAIN else ""
    asked = Asked(kind=kind, model="fraud", training_set=trainable(scene), method=method)
    who = people.who(scene.guard, "an-operator", Role.OPERATOR)
    return training_jobs.request(scene.guard, who, asked).id


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.guard.engine.dispose()


def test_every_route_is_in_one_group() -> None:
    routes = [
        f"{method} {route.path}"
        for part in ROUTES
        for route in part.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    ]

    assert sorted(routes) == sorted([*READING, *NOTICES, *SIGNING, *DOINGS])


@pytest.mark.parametrize("route", DOINGS)
def test_what_changes_something_leaves_a_sealed_act_of_whoever_asked(
    scene: Scene, route: str
) -> None:
    kind, role, prepare, body = DOINGS[route]
    token, first = people.give(scene.guard, "somebody", role), prepare(scene)
    path = re.sub(r"\{\w+\}", first, route.partition(" ")[2])
    sent = body(scene)
    before = scene.seq

    with TestClient(create_app(scene.guard)) as client:
        answer = client.post(path, json=sent, headers={"Authorization": f"Bearer {token}"})

    assert answer.is_success, answer.text
    tend(scene.guard)  # as the process with the key does, where the API has none
    assert (str(kind), "somebody") in scene.since(before)
    assert standing(scene.guard, whole=True).unsealed == ()


def test_what_only_reads_leaves_the_chain_as_it_was(scene: Scene) -> None:
    token = people.give(scene.guard, "somebody", Role.VIEWER)
    ids = {
        "scan_id": scene.first,
        "verdict_id": scene.scan(scene.first).verdict_id or "",
        "waiver_id": scene.ask().waiver_id,
        "nomination_id": "none",
        "alarm_id": alarm(scene),
        "letter_id": letter(scene),
        "hook_id": hook(scene),
        "name": project(scene),
    }
    jobs = {"retrainings": job(scene, JobKind.RETRAIN), "sifts": job(scene, JobKind.SIFT)}
    settings = replace(scene.guard.settings, read_all=("somebody",))
    scene.guard = replace(scene.guard, settings=settings)
    state = standing(scene.guard)

    with TestClient(create_app(scene.guard)) as client:
        for route in sorted(READING):
            path = route.partition(" ")[2]
            path = path.format(**ids, job_id=jobs.get(path.split("/")[1], ""))
            answer = client.get(path, headers={"Authorization": f"Bearer {token}"})
            assert answer.is_success or "nominations" in path, answer.text

    assert standing(scene.guard) == state
