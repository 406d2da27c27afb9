"""Waivers over HTTP: the roles and refusals of `guard waive`, and no method is loaded for them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from guard.api.app import create_app
from guard.core.roles import Act, Role
from guard.core.states import Verdict
from guard.flow import waivers
from guard.flow.reconcile import reconcile_guard
from guard.flow.verify import verify
from guard.store import acts
from guard.store.session import reading
from tests import people
from tests.api.test_events import refused
from tests.flow.test_waivers import FINDING, Scene
from tests.schemas import faults

UNTIL = "2026-12-11"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.guard.engine.dispose()


@pytest.fixture
def client(scene: Scene) -> Iterator[TestClient]:
    with TestClient(create_app(scene.guard), raise_server_exceptions=False) as client:
        yield client


class Caller:
    """Somebody with a token of a role."""

    def __init__(self, scene: Scene, client: TestClient, name: str, role: Role) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {people.give(scene.guard, name, role)}"}

    def get(self, path: str = "") -> Any:
        return self.client.get(f"/waivers{path}", headers=self.headers)

    def post(self, path: str, **body: Any) -> Any:
        return self.client.post(f"/waivers{path}", json=body, headers=self.headers)

    def ask(self, artifact: str, **changes: Any) -> Any:
        wanted = {"finding": FINDING, "reason": "a square by nature", "until": UNTIL}
        return self.post("", artifact=artifact, **{**wanted, **changes})


@pytest.fixture
def rita(scene: Scene, client: TestClient) -> Caller:
    return Caller(scene, client, "rita", Role.REVIEWER)


@pytest.fixture
def sam(scene: Scene, client: TestClient) -> Caller:
    return Caller(scene, client, "sam", Role.REVIEWER)


def verdict(scene: Scene) -> Verdict:
    """The verdict in force on the scene's artifact."""
    found: Verdict = scene.facts.verdict
    return found


def test_a_finding_is_waived_by_two_and_the_artifact_decided_anew(
    scene: Scene, rita: Caller, sam: Caller
) -> None:
    asked = rita.ask(scene.digest)
    made = asked.json()
    assert (asked.status_code, made["state"], made["owner"]) == (201, "waiting", "rita")
    assert asked.headers["location"] == f"/waivers/{made['waiver_id']}"
    assert made["until"] == f"{UNTIL}T00:00:00Z"
    assert (made["method"], made["target"], made["artifact"]) == (
        "patch_inversion",
        2,
        scene.digest,
    )

    agreed = sam.post(f"/{made['waiver_id'][:10]}/approve")
    scene.work()

    assert (agreed.status_code, agreed.json()["state"]) == (200, "in force")
    (opened,) = agreed.json()["decided_anew"]
    assert scene.in_force.scan_id == opened
    assert verdict(scene) is Verdict.CLEARED
    shown = rita.get(f"/{made['waiver_id']}").json()
    assert (shown["state"], shown["approver"]) == ("in force", "sam")
    assert rita.get().json() == {"waivers": [shown]}

    ended = rita.post(f"/{made['waiver_id']}/revoke", reason="it was a mistake")
    scene.work()

    assert (ended.json()["state"], len(ended.json()["decided_anew"])) == ("revoked", 1)
    assert verdict(scene) is Verdict.REJECTED
    with reading(scene.guard.engine) as session:
        done = acts.about(session, [scene.digest, made["waiver_id"]])
    assert [(row.act, row.principal) for row in done] == [
        (Act.WAIVE, "rita"),
        (Act.APPROVE_WAIVER, "sam"),
        (Act.REVOKE_WAIVER, "rita"),
    ]
    reconcile_guard(scene.guard)  # takes out what the waiver had let in
    assert verify(scene.guard) == []


def test_every_answer_keeps_to_the_published_schema(
    scene: Scene, rita: Caller, sam: Caller
) -> None:
    made = rita.ask(scene.scan_id).json()
    agreed = sam.post(f"/{made['waiver_id']}/approve").json()
    (listed,) = sam.get().json()["waivers"]

    for answer in (made, agreed, listed):
        assert faults("waiver.schema.json", answer) == []


@pytest.mark.parametrize("role", Role)
def test_only_reviewers_ask_and_agree_and_operators_may_end(
    scene: Scene, client: TestClient, rita: Caller, role: Role
) -> None:
    somebody = Caller(scene, client, "somebody", role)
    waiver = rita.ask(scene.digest).json()["waiver_id"]

    asked = somebody.ask(scene.digest)
    agreed = somebody.post(f"/{waiver}/approve")
    ended = somebody.post(f"/{waiver}/revoke", reason="no")

    for answer, may in (
        (asked, role is Role.REVIEWER),
        (agreed, role is Role.REVIEWER),
        (ended, role in {Role.REVIEWER, Role.OPERATOR}),
    ):
        if may:
            assert answer.is_success
        else:
            refused(answer, 403, "forbidden")
    assert somebody.get().status_code == 200


def test_what_the_command_refuses_is_refused_with_its_code(
    scene: Scene, rita: Caller, sam: Caller, client: TestClient
) -> None:
    ann = Caller(scene, client, "ann", Role.REVIEWER)
    refused(ann.ask(scene.digest), 412, "not_servable")
    refused(rita.ask(scene.digest, reason=" "), 400, "waiver_no_reason")
    refused(rita.ask(scene.digest, until="2020-01-01"), 400, "waiver_until")
    refused(rita.ask(scene.digest, until="2036-01-01"), 400, "waiver_until")
    refused(rita.ask(scene.digest, finding="patch_inversion:3"), 400, "waiver_no_finding")
    refused(rita.ask(scene.digest, finding="mesa"), 400, "waiver_no_finding")
    refused(rita.ask("ab" * 32), 404, "unknown_scan")
    assert sam.get().json() == {"waivers": []}

    waiver = rita.ask(scene.digest).json()["waiver_id"]
    refused(rita.post(f"/{waiver}/approve"), 412, "not_servable")
    refused(ann.post(f"/{waiver}/approve"), 412, "not_servable")
    refused(sam.post("/0000000000/approve"), 404, "unknown_waiver")
    refused(sam.get("/short"), 404, "unknown_waiver")
    refused(sam.post(f"/{waiver}/revoke", reason=""), 400, "waiver_no_reason")
    assert sam.post(f"/{waiver}/approve").status_code == 200
    refused(sam.post(f"/{waiver}/approve"), 409, "waiver_not_waiting")
    assert sam.post(f"/{waiver}/revoke", reason="over").status_code == 200
    refused(sam.post(f"/{waiver}/revoke", reason="over"), 409, "waiver_not_waiting")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"artifact": "a", "finding": "b", "reason": "c"},
        {"artifact": "a", "finding": "b", "reason": "c", "until": "soon"},
        {"artifact": "a", "finding": "b", "reason": "c", "until": UNTIL, "owner": "eve"},
        {"artifact": "a" * 65, "finding": "b", "reason": "c", "until": UNTIL},
    ],
)
def test_a_request_that_is_none_is_refused(rita: Caller, body: dict[str, Any]) -> None:
    refused(rita.post("", **body), 400, "bad_request")


def test_nothing_is_told_or_done_without_a_token(scene: Scene, client: TestClient) -> None:
    for answer in (
        client.get("/waivers"),
        client.get("/waivers/aaaaaaaa"),
        client.post("/waivers", json={}),
        client.post("/waivers/aaaaaaaa/approve"),
        client.post("/waivers/aaaaaaaa/revoke", json={"reason": "x"}),
    ):
        refused(answer, 401, "unauthorised")
    assert waivers.listed(scene.guard) == []


WITHOUT = """
import sys
sys.modules["torch"] = None  # as where it is not installed
from datetime import UTC, datetime
from dataclasses import replace
from fastapi.testclient import TestClient
from guard.api.app import create_app
from guard.bootstrap import open_guard
digest, rita, sam, finding, until, now = sys.argv[1:]
client = TestClient(create_app(replace(open_guard(), now=lambda: datetime.fromisoformat(now))))
def post(who, path, **body):
    answer = client.post(path, json=body, headers={"Authorization": f"Bearer {who}"})
    assert answer.is_success, answer.text
    return answer.json()
made = post(rita, "/waivers", artifact=digest, finding=finding, reason="x", until=until)
opened = post(sam, f"/waivers/{made['waiver_id']}/approve")["decided_anew"]
listed = client.get("/waivers", headers={"Authorization": f"Bearer {sam}"}).json()["waivers"]
assert [one["state"] for one in listed] == ["in force"], listed
print(*opened)
"""


def test_an_api_without_torch_and_without_the_key_does_all_of_it(scene: Scene) -> None:
    """What it opens is decided by a worker, which has the methods and the signing key."""
    rita, sam = (people.give(scene.guard, name, Role.REVIEWER) for name in ("rita", "sam"))
    data = scene.guard.settings.data_dir
    now = scene.clock.isoformat()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, scene.digest, rita, sam, FINDING, UNTIL, now],
        capture_output=True,
        check=False,
        text=True,
        env={
            "GUARD_DATA_DIR": str(data),
            "GUARD_SIGNING_KEY_FILE": str(data / "keys" / "none.pem"),
            "GUARD_CHECKPOINT_DIR": str(data / "checkpoints"),
            "PATH": "",
        },
    )
    assert done.returncode == 0, done.stderr

    (opened,) = done.stdout.split()
    assert scene.scan(opened).detail.rescan is not None
    assert scene.messages() == ["decide"]
