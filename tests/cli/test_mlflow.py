"""`guard mlflow sync`: a table or JSON, and a code that says whether an alias was taken away."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from guard.core.states import Verdict
from tests.cli.conftest import Answer, Service
from tests.registries.standin import Registry, serving

Cli = Callable[..., Answer]


@pytest.fixture
def registry(service: Service) -> Iterator[Registry]:
    made = Registry()
    with serving(made) as url:
        settings = replace(service.guard.settings, mlflow_url=url)
        service.guard = replace(service.guard, settings=settings)
        yield made


def test_a_cleared_version_serves_and_one_that_is_not_loses_the_alias(
    service: Service, registry: Registry, cli: Cli
) -> None:
    good, bad = service.scan(Verdict.CLEARED), service.scan(Verdict.HELD, name="odd", data=b"odd")
    for name, scan in (("good", good), ("bad", bad)):
        registry.answer("POST", "registered-models/create", {}, {"name": name})
        body = {"name": name, "source": f"s3://models/{scan.key}"}
        registry.answer("POST", "model-versions/create", {}, body)
    only = cli("mlflow", "sync", "--name", "good")
    registry.aliases["bad"]["serving"] = "1"
    both = cli("mlflow", "sync", "--format", "json")

    assert only.code == 0
    assert "serving" in only.out
    assert both.code == 1
    assert [(one["name"], one["before"], one["after"]) for one in json.loads(both.out)] == [
        ("good", 1, 1),
        ("bad", 1, None),
    ]
    assert registry.aliases == {"good": {"serving": "1"}, "bad": {}}


def test_without_a_server_it_says_what_to_set(service: Service, cli: Cli) -> None:
    answer = cli("mlflow", "sync")

    assert answer.code == 4
    assert "GUARD_MLFLOW_URL" in answer.err
