"""Every route answers as the OpenAPI description has it, whatever is sent, and never with a 5xx.

`GUARD_API_EXAMPLES=200 pytest tests/api/test_openapi.py` looks for longer.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import schemathesis
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi import checks
from schemathesis.specs.openapi.schemas import OpenApiSchema

from guard.api.access import OPEN
from guard.api.app import ROUTES, create_app
from guard.core.roles import Role
from guard.core.training_jobs import JobKind
from guard.settings import Secret
from tests import people
from tests.api.conftest import event
from tests.api.test_every_route import DOINGS, SIGNING, job
from tests.cli.test_every_command import Scene, alarm, hook, letter, project

EXAMPLES = int(os.environ.get("GUARD_API_EXAMPLES", "6"))
WEBHOOK = "from-the-store"
PATIENCE = 300  # seconds; 10 are not enough for every answer on a busy machine
EVENTS = "POST /events/s3"
CHECKS: list[CheckFunction] = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
#: What is for people, and the description itself.
UNDESCRIBED = {"GET /docs", "GET /healthz", "GET /openapi.json", *SIGNING}


def routes(*, described: bool) -> list[str]:
    return sorted(
        f"{method} {route.path}"
        for part in ROUTES
        for route in part.router.routes
        if isinstance(route, APIRoute) and route.include_in_schema is described
        for method in route.methods
    )


#: Where what is looked at by id comes from; routes that do something have it in DOINGS.
IDS: dict[str, Callable[[Scene], str]] = {
    "GET /alarms/{alarm_id}": alarm,
    "GET /dead-letters/{letter_id}": letter,
    "GET /hooks/{hook_id}": hook,
    "GET /projects/{name}": project,
    "GET /retrainings/{job_id}": lambda scene: job(scene, JobKind.RETRAIN),
    "GET /scans/{scan_id}": lambda scene: scene.first,
    "GET /sifts/{job_id}": lambda scene: job(scene, JobKind.SIFT),
    "GET /verdicts/{verdict_id}": lambda scene: scene.scan(scene.first).verdict_id or "",
    "GET /waivers/{waiver_id}": lambda scene: scene.ask().waiver_id,
}


@dataclass
class Site:
    """An API as it is described, with what each of its routes is for."""

    schema: OpenApiSchema
    fitting: dict[str, tuple[dict[str, str], Any]]
    tokens: dict[Role, str]

    def bearers(self, route: str) -> list[str]:
        """Tokens of all roles, the one that a route is for before the rest."""
        if route == EVENTS:
            return [WEBHOOK]
        best = DOINGS[route][1] if route in DOINGS else Role.VIEWER
        return [self.tokens[role] for role in sorted(Role, key=lambda role: role is not best)]


def fitting(scene: Scene, route: str) -> tuple[dict[str, str], Any]:
    """The path's id and the body with which a route does what it is for."""
    (name, *_) = re.findall(r"\{(\w+)\}", route) or [""]
    body: Any = event() if route == EVENTS else None
    first = IDS.get(route)
    if route in DOINGS:
        _, _, first, make = DOINGS[route]
        body = make(scene)
    if route == "POST /projects":  # the other routes' project has this name
        body = {**body, "name": "sound", "prefix": "models/sound"}
    found = "none" if first is None else first(scene)
    return ({name: found} if name else {}), body


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    scene = Scene(tmp_path_factory.mktemp("openapi"))
    scene.share()
    fits = {route: fitting(scene, route) for route in routes(described=True)}
    names = {role: f"any-{role}" for role in Role}
    known = replace(
        scene.guard.settings, webhook_token=Secret(WEBHOOK), read_all=tuple(names.values())
    )
    rule = replace(scene.guard.policy.retrain, max_open=10_000)
    policy = replace(scene.guard.policy, retrain=rule)
    guard = replace(scene.guard, settings=known, policy=policy)
    tokens = {role: people.give(guard, names[role], role) for role in Role}
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json",
        create_app(guard),
        headers={"Authorization": f"Bearer {tokens[Role.VIEWER]}"},
    )
    yield Site(schema, fits, tokens)
    scene.guard.engine.dispose()


@pytest.mark.row(59)
def test_all_is_described_but_what_people_open(site: Site) -> None:
    described = site.schema.raw_schema["paths"]

    assert routes(described=False) == sorted(UNDESCRIBED)
    assert routes(described=True) == sorted(
        f"{method.upper()} {path}" for path, methods in described.items() for method in methods
    )
    site.schema.validate()


@pytest.mark.row(59)
@pytest.mark.parametrize("route", routes(described=True))
def test_a_route_answers_as_it_is_described(site: Site, route: str) -> None:
    method, _, path = route.partition(" ")
    operation = site.schema[path][method]
    ids, body = site.fitting[route]
    bearers = site.bearers(route)

    # A body that is not valid is refused; parameters of a query that nobody knows are passed over.
    wanted = CHECKS + ([checks.negative_data_rejection] if body is not None else [])

    def send(case: Case[Any], token: str) -> int:
        answer = case.call(headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE)
        case.validate_response(answer, checks=wanted)
        return answer.status_code

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def anything(data: st.DataObject) -> None:
        valid, known = data.draw(st.sampled_from([(True, True), (True, False), (False, False)]))
        mode = GenerationMode.POSITIVE if valid else GenerationMode.NEGATIVE
        case = data.draw(operation.as_strategy(mode, path_parameters=ids if known else None))
        if known and isinstance(case.body, dict) and body is not None:
            kept = data.draw(st.sets(st.sampled_from(sorted(body))))
            case.body = {**case.body, **{name: body[name] for name in kept}}
        send(case, data.draw(st.sampled_from(bearers)))

    sent = {} if body is None else {"body": body, "media_type": "application/json"}
    fit = operation.Case(path_parameters=ids, **sent)
    assert send(fit, bearers[0]) < 300 or "nominations" in path
    anything()


def test_without_a_token_only_open_routes_answer(site: Site) -> None:
    for operation in site.schema.get_all_operations():
        case = operation.ok().Case(
            path_parameters=dict.fromkeys(re.findall(r"\{(\w+)\}", operation.ok().path), "none")
        )
        status = case.call(timeout=PATIENCE).status_code
        assert (status == 401) is (case.path not in OPEN), case.path
