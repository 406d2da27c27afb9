"""Who is in one project sees nothing of another's: every route is tried by a foreign member.

What asks for an id answers a foreign one like one that does not exist; what lists, lists nothing
foreign; the rest is for those who read all projects, or holds nothing of any.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from guard.api.app import ROUTES, create_app
from guard.api.sessions import COOKIE
from guard.console import routes as console
from guard.core.projects import MemberKind
from guard.core.roles import Act, Role
from guard.core.states import ScanState
from guard.core.training_jobs import JobKind
from guard.flow import orders, projects, readers
from guard.flow.principals import Forbidden, authenticate
from guard.flow.sessions import open_session
from guard.store import alarms, nominations, scans
from guard.store import projects as stored
from guard.store.scope import EVERYTHING
from guard.store.session import reading, transaction
from tests import people
from tests.api.test_every_route import job
from tests.cli.test_every_command import Scene, delivery, held, hook, letter
from tests.flow.test_waivers import FINDING

MEMBER_ROLES = (Role.VIEWER, Role.UPLOADER, Role.REVIEWER)
#: A foreign id and one that does not exist are answered alike, to every role of a member.
BY_ID = {
    "GET /alarms/{alarm_id}",
    "GET /console/digests/{digest}",
    "GET /console/orders/{order_id}",
    "GET /console/scans/{scan_id}",
    "GET /console/scans/{scan_id}/report",
    "GET /console/verdicts/{verdict_id}/statement.json",
    "GET /dead-letters/{letter_id}",
    "GET /hooks/{hook_id}",
    "GET /nominations/{nomination_id}",
    "GET /projects/{name}",
    "GET /retrainings/{job_id}",
    "GET /scans/{scan_id}",
    "GET /sifts/{job_id}",
    "GET /verdicts/{verdict_id}",
    "GET /waivers/{waiver_id}",
    "POST /alarms/{alarm_id}/acknowledge",
    "POST /console/scans/{scan_id}/images",
    "POST /dead-letters/{letter_id}/retry",
    "POST /hooks/deliveries/{delivery_id}/retry",
    "POST /hooks/{hook_id}/remove",
    "POST /hooks/{hook_id}/test",
    "POST /projects/{name}",
    "POST /projects/{name}/members",
    "POST /projects/{name}/members/remove",
    "POST /retrainings/{job_id}/cancel",
    "POST /sifts/{job_id}/cancel",
    "POST /waivers/{waiver_id}/approve",
    "POST /waivers/{waiver_id}/revoke",
}
#: The same where the id stands in the body or the query.
BY_BODY = {
    "GET /console/compare",
    "POST /console/orders",
    "POST /retrainings",
    "POST /scans",
    "POST /sifts",
    "POST /waivers",
}
#: Nothing foreign is in the answer.
LISTS = {
    "GET /alarms",
    "GET /console/",
    "GET /console/acts",
    "GET /console/alarms",
    "GET /console/methods",
    "GET /console/orders",
    "GET /console/policy",
    "GET /console/scans",
    "GET /console/served",
    "GET /dead-letters",
    "GET /projects",
    "GET /retrainings",
    "GET /scans",
    "GET /sifts",
    "GET /waivers",
}
#: Only for those who read all projects, or operators, whatever is asked.
FOR_ALL_PROJECTS = {"GET /hooks", "GET /hooks/deliveries", "GET /metrics"}
OPERATORS = {"POST /hooks", "POST /projects"}
#: Holds nothing of any project, or is asked by nobody who is known.
OF_NOBODY = {
    "GET /console/login",
    "GET /console/login/oidc",
    "GET /console/login/oidc/callback",
    "GET /console/static/console.css",
    "GET /docs",
    "GET /health/live",
    "GET /health/ready",
    "GET /healthz",
    "GET /openapi.json",
    "POST /console/login",
    "POST /console/logout",
    "POST /events/s3",
    "POST /oidc/backchannel-logout",
}


@dataclass
class Tenants:
    """`mallory` is of the project `mine`; everything else is of `theirs`, where `vera` looks."""

    scene: Scene
    app: FastAPI
    ids: dict[str, str]
    marks: tuple[str, ...]
    tokens: dict[tuple[str, Role], str]
    _browsers: dict[tuple[str, Role], TestClient] = field(default_factory=dict)

    def ask(self, name: str, role: Role, method: str, path: str, body: object = None) -> Any:
        """What a program, or below the console a browser, of somebody is answered."""
        key = (name, role)
        if not path.startswith("/console/"):
            client = TestClient(self.app, raise_server_exceptions=False, follow_redirects=False)
            bearer = {"Authorization": f"Bearer {self.tokens[key]}"}
            return client.request(method, path, json=body, headers=bearer)
        if key not in self._browsers:
            client = TestClient(self.app, raise_server_exceptions=False, follow_redirects=False)
            who = authenticate(self.scene.guard, self.tokens[key])
            opened = open_session(self.scene.guard, who)
            client.cookies.set(COOKIE, opened.cookie)
            client.headers.update({"Origin": str(client.base_url), "csrf": opened.csrf})
            self._browsers[key] = client
        sent = {"data": body} if method == "POST" else {}
        return self._browsers[key].request(method, path, **sent)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    made = _tenants(tmp_path_factory.mktemp("tenants"))
    yield made
    made.scene.guard.engine.dispose()


def _tenants(folder: Path) -> Tenants:
    scene = Scene(folder)
    waiting = held(scene)
    waiver = scene.ask().waiver_id
    jobs = {
        f"{kind}s" if kind is JobKind.SIFT else "retrainings": job(scene, kind) for kind in JobKind
    }
    guard = scene.guard
    with transaction(guard.engine) as session:
        key = scans.get(session, scene.first).key
        nomination = nominations.add(
            session,
            nomination_id="5" * 32,
            bucket="models",
            key=key,
            version_id="v",
            source="test",
            now=guard.now(),
        )
        alarms.raise_(session, "name_taken", f"s3://models/{key}", "It is.", guard.now())
        (alarm,) = alarms.open_alarms(session, "name_taken")
    operator = people.who(guard, "olga", Role.OPERATOR)
    order = orders.place(guard, operator, Act.RESCAN, {"scan": scene.first})
    ids = {
        "alarm_id": alarm.id,
        "delivery_id": delivery(scene),
        "digest": scene.digest,
        "hook_id": hook(scene),
        "letter_id": letter(scene),
        "name": "theirs",
        "nomination_id": nomination.id,
        "order_id": order.id,
        "scan_id": waiting,
        "verdict_id": scene.scan(waiting).verdict_id or "",
        "waiver_id": waiver,
        **{f"{place}/job_id": one for place, one in jobs.items()},
    }
    own = {"cleanset": "squares", "policy": "strict"}
    projects.create(guard, operator, "theirs", "models/models", own)
    projects.create(guard, operator, "mine", "models/mine", {})
    projects.create(guard, operator, "lost", "models/lost", {})
    with transaction(guard.engine) as session:
        stored.change(session, "lost", {"policy": "gone"})
    tokens: dict[tuple[str, Role], str] = {}
    for name, project in (("mallory", "mine"), ("vera", "theirs"), ("vera", "lost")):
        for role in MEMBER_ROLES:
            tokens[name, role] = tokens.get((name, role)) or people.give(guard, name, role)
            member = (MemberKind.PRINCIPAL, name, role)
            projects.add_member(guard, operator, project, *member)
    marks = ("fraud", "natural", "odd", "theirs", "lost", "squares", *scene.models, *ids.values())
    return Tenants(scene=scene, app=create_app(guard), ids=ids, marks=marks, tokens=tokens)


def _routes() -> list[str]:
    routers = (*(part.router for part in ROUTES), *console.ROUTERS)
    return sorted(
        f"{method} {route.path}"
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    )


def _path(tenants: Tenants, path: str, *, real: bool) -> tuple[str, str]:
    """The path with an id, and the id."""
    (name,) = re.findall(r"\{(\w+)\}", path)
    key = f"{path.split('/')[1]}/job_id" if name == "job_id" else name
    known = tenants.ids[key]
    chosen = known if real else {"name": "nobody"}.get(name, "e" * len(known))
    return re.sub(r"\{\w+\}", chosen, path), chosen


def _answered(answer: Any, *ids: str) -> tuple[int, str, str | None]:
    """What an answer says beside the id that was asked for."""
    text, place = answer.text, answer.headers.get("location")
    for one in sorted({part for full in ids for part in (full, full[:12])}, key=len, reverse=True):
        text, place = text.replace(one, "ID"), place and place.replace(one, "ID")
    return answer.status_code, text, place


BODIES: dict[str, object] = {
    "POST /alarms/{alarm_id}/acknowledge": {"reason": "seen"},
    "POST /projects/{name}": {"priority": "high"},
    "POST /projects/{name}/members": {
        "kind": "principal",
        "member": "mallory",
        "role": "viewer",
    },
    "POST /projects/{name}/members/remove": {
        "kind": "principal",
        "member": "vera",
        "role": "viewer",
    },
    "POST /waivers/{waiver_id}/revoke": {"reason": "over"},
}


def test_every_route_is_classified() -> None:
    groups = [BY_ID, BY_BODY, LISTS, FOR_ALL_PROJECTS, OPERATORS, OF_NOBODY]

    assert _routes() == sorted(route for group in groups for route in group)


@pytest.mark.row(54)
@pytest.mark.parametrize("route", sorted(BY_ID))
def test_a_foreign_id_is_answered_like_one_that_does_not_exist(
    tenants: Tenants, route: str
) -> None:
    method, _, path = route.partition(" ")
    for role in MEMBER_ROLES:
        found = []
        for real in (True, False):
            asked, chosen = _path(tenants, path, real=real)
            answer = tenants.ask("mallory", role, method, asked, BODIES.get(route))
            assert answer.status_code in {403, 404}, (role, answer.text)
            found.append(_answered(answer, chosen))
        assert found[0] == found[1], role


def test_a_member_reads_what_is_the_projects_own(tenants: Tenants) -> None:
    elsewhere = ("alarms", "dead-letters", "hooks", "orders")  # the installation's, or somebody's
    for route in sorted(BY_ID):
        method, _, path = route.partition(" ")
        if method == "GET" and path.removeprefix("/console").split("/")[1] not in elsewhere:
            asked, _ = _path(tenants, path, real=True)
            answer = tenants.ask("vera", Role.VIEWER, method, asked)
            assert answer.status_code in {200, 303}, (route, answer.text)
    asked, _ = _path(tenants, "/alarms/{alarm_id}", real=True)
    assert tenants.ask("vera", Role.VIEWER, "GET", asked).status_code == 200


@pytest.mark.parametrize("route", sorted(LISTS))
def test_a_list_holds_nothing_foreign(tenants: Tenants, route: str) -> None:
    path = route.partition(" ")[2]
    for role in MEMBER_ROLES:
        answer = tenants.ask("mallory", role, "GET", path)
        assert answer.status_code == 200
        known = {"natural"} if path == "/console/policy" else set()  # a rule's name as well
        if path == "/console/orders":  # what mallory herself named, in other tests, stands there
            continue
        for mark in set(tenants.marks) - known:
            assert mark not in answer.text, (role, mark)


def test_a_member_has_the_projects_own_in_the_lists(tenants: Tenants) -> None:
    holds = {
        "/scans": "fraud",
        "/projects": "theirs",
        "/waivers": tenants.scene.digest,
        "/sifts": tenants.ids["sifts/job_id"],
        "/retrainings": tenants.ids["retrainings/job_id"],
        "/alarms": tenants.ids["alarm_id"],
        "/console/": "natural",
        "/console/scans": "fraud",
        "/console/scans?q=fraud": tenants.scene.first,
        f"/console/scans?q={tenants.scene.digest[:10]}": "odd",
        "/console/served": "fraud",
        "/console/acts": tenants.scene.digest[:12],
        "/console/methods": "squares",
        "/console/policy": "Project theirs: strict",
        f"/console/scans/{tenants.ids['scan_id']}": "Project theirs has a policy of its own",
    }
    for path, mark in holds.items():
        assert mark in tenants.ask("vera", Role.VIEWER, "GET", path).text, path
    lost = tenants.ask("vera", Role.VIEWER, "GET", "/console/policy").text
    assert "Nothing of this project is cleared: There is no policy called" in lost


@pytest.mark.parametrize("text", ["fraud", "ann", "natural", "DIGEST", "SCAN"])
def test_a_search_finds_nothing_foreign(tenants: Tenants, text: str) -> None:
    text = {"DIGEST": tenants.scene.digest, "SCAN": tenants.ids["scan_id"]}.get(text, text)

    found = tenants.ask("mallory", Role.REVIEWER, "GET", f"/console/scans?q={text}").text
    none = tenants.ask("mallory", Role.REVIEWER, "GET", "/console/scans?q=zzzz").text

    assert found.replace(text, "ID") == none.replace("zzzz", "ID")


def test_bodies_and_queries_that_name_something_foreign_find_nothing(tenants: Tenants) -> None:
    digest, scan = tenants.scene.digest, tenants.ids["scan_id"]
    waiver = {"finding": FINDING, "reason": "x", "until": "2026-12-11"}
    verdict = tenants.ids["verdict_id"]
    cases: list[tuple[Role, str, str, dict[str, str], dict[str, str]]] = [
        (Role.REVIEWER, "POST", "/waivers", {**waiver, "artifact": digest}, {"artifact": "e" * 64}),
        (Role.REVIEWER, "POST", "/waivers", {**waiver, "artifact": scan}, {"artifact": "e" * 32}),
        *(
            (Role.UPLOADER, "POST", place, {"model": one, "training_set": "digits", **more}, other)
            for (one, other), (place, more) in product(
                ((digest, {"model": "e" * 64}), (scan, {"model": "e" * 32})),
                (("/sifts", {}), ("/retrainings", {"method": "sifted"})),
            )
        ),
    ]
    for role, method, path, foreign, unknown in cases:
        found = [
            _answered(tenants.ask("mallory", role, method, path, body), *body.values())
            for body in (foreign, {**foreign, **unknown})
        ]
        assert found[0] == found[1]
        assert found[0][0] == 404, found[0]
    named = [
        tenants.ask("mallory", Role.UPLOADER, "POST", "/sifts", {"model": one}).status_code
        for one in ("fraud", "nobody")
    ]
    assert named == [404, 404]
    keys = ("models/fraud/m.pt", "models/nothing/m.pt")
    wanted = [{"bucket": "models", "key": one} for one in keys]
    refused = [tenants.ask("mallory", Role.UPLOADER, "POST", "/scans", one) for one in wanted]
    assert [one.status_code for one in refused] == [403, 403]
    for left, right in ((verdict, verdict), ("e" * 32, "e" * 32)):
        page = tenants.ask("mallory", Role.VIEWER, "GET", f"/console/compare?a={left}&b={right}")
        assert page.status_code == 404


def test_what_is_asked_for_in_the_console_finds_nothing_foreign(tenants: Tenants) -> None:
    guard, ids = tenants.scene.guard, tenants.ids
    waiver = {"finding": FINDING, "until": "2026-12-11"}
    for act, wanted in (
        ("approve", {"scan": ids["scan_id"]}),
        ("reject", {"scan": ids["scan_id"]}),
        ("rescan", {"scan": ids["scan_id"]}),
        ("rescan", {"scan": tenants.scene.digest}),
        ("rescan", {"scan": "fraud"}),
        ("waive", {"scan": ids["scan_id"], **waiver}),
        ("waiver_approve", {"waiver": ids["waiver_id"]}),
        ("waiver_revoke", {"waiver": ids["waiver_id"]}),
    ):
        answers = []
        for unknown in (False, True):
            key = next(iter(wanted))
            chosen = "e" * len(wanted[key]) if unknown else wanted[key]
            body = {**wanted, key: chosen, "act": act, "reason": "x"}
            placed = tenants.ask("mallory", Role.REVIEWER, "POST", "/console/orders", body)
            row = orders.work(guard, placed.headers["location"].rpartition("/")[2])
            answers.append((row.state, row.answer.replace(chosen, "ID")))
        assert answers[0] == answers[1], act
    body = {"act": "read", "policy": "default"}
    placed = tenants.ask("mallory", Role.REVIEWER, "POST", "/console/orders", body)
    row = orders.work(guard, placed.headers["location"].rpartition("/")[2])
    assert row.answer == "A simulation is about all projects; ask an operator."


@pytest.mark.parametrize("route", sorted(FOR_ALL_PROJECTS | OPERATORS))
def test_what_is_about_all_projects_is_for_no_member(tenants: Tenants, route: str) -> None:
    method, _, path = route.partition(" ")
    bodies = {
        "/hooks": {"kind": "slack", "address": "https://a.example/in"},
        "/projects": {"name": "theirs", "prefix": "models/models"},
    }
    for role in MEMBER_ROLES:
        body = bodies.get(path) if method == "POST" else None
        assert tenants.ask("mallory", role, method, path, body).status_code == 403


def test_who_reads_what_by_role_membership_ownership_and_setting(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    guard = scene.guard
    member = people.who(guard, "mia", Role.VIEWER)
    owner = people.who(guard, "una", Role.UPLOADER, prefixes=["models/models/odd"])
    assert readers.scope_for(guard, member) == EVERYTHING, "where there is no project"
    olga = people.who(guard, "olga", Role.OPERATOR)
    projects.create(guard, olga, "all", "models/models", {})
    projects.create(guard, olga, "inner", "models/models/fraud", {})
    projects.create(guard, olga, "apart", "models/elsewhere", {})

    def seen(who: object, **settings: object) -> list[str]:
        own = replace(guard, settings=replace(guard.settings, **settings))  # type: ignore[arg-type]
        scope = readers.scope_for(own, who)  # type: ignore[arg-type]
        with reading(guard.engine) as session:
            rows = scans.list_recent(session, scope=scope)
            every = scans.list_recent(session)
        assert rows == [one for one in every if scope.sees(one.bucket, one.key)]
        return sorted(one.name for one in rows if not one.name.startswith("seed-"))

    assert seen(member) == []
    assert seen(owner) == ["odd"]
    assert seen(olga) == seen("a login") == ["fraud", "odd"]
    assert seen(member, read_all=("mia",)) == ["fraud", "odd"]
    projects.add_member(guard, olga, "all", MemberKind.PRINCIPAL, "mia", Role.VIEWER)
    assert seen(member) == ["odd"], "the inner project is not hers"
    projects.add_member(guard, olga, "inner", MemberKind.PRINCIPAL, "mia", Role.REVIEWER)
    assert seen(member) == ["fraud", "odd"]
    for name, role in (("all", Role.VIEWER), ("inner", Role.REVIEWER)):
        projects.remove_member(guard, olga, name, MemberKind.PRINCIPAL, "mia", role)
    assert seen(member) == [], "who is in no project any more does not see all"
    with transaction(guard.engine) as session:
        scans.insert(
            session,
            scan_id="6" * 32,
            bucket="models",
            key="free/m.pt",
            version_id=None,
            name="free",
            now=guard.now(),
        )
        assert scans.get(session, "6" * 32).state is ScanState.QUEUED
    assert seen(member) == []
    assert seen(member, read_unassigned=True) == ["free"]
    with pytest.raises(Forbidden, match="about all projects"):
        readers.check_everything(readers.scope_for(guard, member), "It")
    guard.engine.dispose()
