"""`guard name`: whose the served names are, and how they are given away."""

import json
from collections.abc import Callable

from guard.store import acts, claims
from guard.store.session import reading, transaction
from tests.cli.conftest import Answer, Service

Cli = Callable[..., Answer]


def claimed(service: Service, owner: str | None = "mallory") -> None:
    with transaction(service.guard.engine) as session:
        claims.take(
            session,
            name="digits",
            bucket="models",
            prefix="models/digits/",
            owner=owner,
            now=service.guard.now(),
        )


def test_names_are_listed_with_what_they_belong_to(service: Service, cli: Cli) -> None:
    assert cli("name", "list").out == "no name is claimed\n"
    claimed(service)

    (row,) = json.loads(cli("name", "list", "--format", "json").out)
    assert (row["name"], row["prefix"], row["owner"]) == ("digits", "models/digits/", "mallory")
    assert "s3://models/models/digits/" in cli("name", "list").out


def test_a_name_is_given_away_with_a_reason(service: Service, cli: Cli) -> None:
    claimed(service)
    assert cli("name", "transfer", "digits", "--owner", "carl").code == 4

    answer = cli(
        "name", "transfer", "digits", "--owner", "carl", "--reason", "left", "--format=json"
    )

    assert (answer.code, json.loads(answer.out)[0]["owner"]) == (0, "carl")
    with reading(service.guard.engine) as session:
        (act,) = acts.about(session, ["digits"])
    assert (act.act, act.detail) == ("transfer", "left")
    assert act.facts["from"]["owner"] == "mallory"
