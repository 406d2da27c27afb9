"""The client of MLflow's registry, against a stand-in that answers as a real server did."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.bench_mlflow import ask
from guard.core.errors import InputError, Unavailable
from guard.core.secret import Secret
from guard.registries import mlflow
from guard.registries.mlflow import Mlflow
from tests.registries.standin import Registry, serving

CONTRACT = Path(__file__).with_name("mlflow_contract.json")


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.models = {"digits": []}
    made.aliases = {"digits": {}}
    return made


@pytest.fixture
def client(registry: Registry) -> Iterator[Mlflow]:
    with serving(registry) as url, closing(Mlflow(url, Secret())) as made:
        yield made


def test_the_stand_in_answers_as_a_real_server_did() -> None:
    with serving(Registry()) as url:
        assert ask(url) == json.loads(CONTRACT.read_text())["asked"]


def test_versions_come_newest_first_over_all_pages(
    registry: Registry, client: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "_PAGE", 2)
    for number in range(5):
        created = {"name": "digits", "source": f"s3://models/{number}"}
        registry.answer("POST", "model-versions/create", {}, created)
    client.tag("digits", 4, "k", "v")
    client.point("digits", "serving", 3)
    found = client.versions("digits")

    assert [one.version for one in found] == [5, 4, 3, 2, 1]
    assert (found[1].tags, found[1].source) == ({"k": "v"}, "s3://models/3")
    assert client.names() == ["digits"]
    assert client.aliased("digits", "serving") == 3
    assert client.aliased("digits", "other") is None
    client.unpoint("digits", "serving")
    assert client.aliased("digits", "serving") is None


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("models:/m-1", "s3://models/logged"),
        ("models:/m-1/sub", "s3://models/logged"),
        ("models:/m-2", "models:/m-2"),
        ("models:/m-../x", "models:/m-../x"),
    ],
)
def test_a_logged_model_is_found_by_its_own_folder(
    registry: Registry, client: Mlflow, source: str, found: str
) -> None:
    registry.logged["m-1"] = "s3://models/logged"
    created = {"name": "digits", "source": source}
    registry.answer("POST", "model-versions/create", {}, created)

    assert client.versions("digits")[0].source == found


@pytest.mark.parametrize(
    ("token", "header"),
    [("", None), ("abc", "Bearer abc"), ("user:pass", "Basic dXNlcjpwYXNz")],
)
def test_the_token_is_shown_as_the_server_wants_it(
    registry: Registry, token: str, header: str | None
) -> None:
    with serving(registry) as url, closing(Mlflow(url + "/", Secret(token))) as made:
        made.names()

    assert registry.headers.get("Authorization") == header


@pytest.mark.parametrize(
    "broken",
    [(500, b"{}"), (200, b"<html>"), (200, b"[]"), (302, b"{}"), (404, b'{"error_code": "X"}')],
)
def test_what_is_no_answer_is_an_error(
    registry: Registry, client: Mlflow, broken: tuple[int, bytes]
) -> None:
    registry.broken = broken

    with pytest.raises(Unavailable):
        client.names()


def test_a_list_without_an_end_is_given_up(
    registry: Registry, client: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "_MOST_PAGES", 3)
    registry.broken = (200, b'{"next_page_token": "again"}')

    with pytest.raises(Unavailable, match="does not end"):
        client.names()


def test_a_server_that_is_not_there_and_an_address_that_is_none_are_named() -> None:
    with closing(Mlflow("http://127.0.0.1:9", Secret())) as made, pytest.raises(Unavailable):
        made.names()
    with pytest.raises(InputError, match="GUARD_MLFLOW_URL"):
        Mlflow("", Secret())


def test_a_name_that_would_end_the_search_s_quoting_is_not_asked_for(client: Mlflow) -> None:
    with pytest.raises(InputError):
        client.versions("x' or name='y")
