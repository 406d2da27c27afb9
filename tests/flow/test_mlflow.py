"""`guard mlflow sync`: the serving alias never stays on what the gate refuses.

With REAL_MLFLOW set to the address of an empty MLflow server, that one is asked instead of the
stand-in.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from guard.core.errors import InputError
from guard.core.roles import Act, Role
from guard.core.secret import Secret
from guard.flow import mlflow, withdraw
from guard.flow.principals import Forbidden
from guard.registries.mlflow import Mlflow
from guard.store import acts
from guard.store.session import reading
from tests import people
from tests.flow.shop import BACKDOORED, BUCKET, Shop
from tests.registries.standin import ROOT, Registry, serving


@pytest.fixture
def url() -> Iterator[str]:
    if real := os.environ.get("REAL_MLFLOW"):
        yield real
    else:
        with serving(Registry()) as address:
            yield address


class Scene(Shop):
    """A guard beside an MLflow registry, in which one model is registered."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder)
        settings = replace(self.guard.settings, mlflow_url=url, mlflow_sources=("mlflow-artifacts:/=s3://models/base",))  # fmt: skip  # noqa: E501
        self.guard = replace(self.guard, settings=settings)
        self.http = httpx.Client(base_url=url + ROOT, trust_env=False)
        self.name = f"fraud {uuid4().hex[:6]}"
        self.http.post("registered-models/create", json={"name": self.name})
        self.by = people.who(self.guard, "oz", Role.OPERATOR)
        self.registry = Mlflow(url, Secret())

    def register(self, source: str) -> None:
        body = {"name": self.name, "source": source}
        self.http.post("model-versions/create", json=body).raise_for_status()

    def sync(self, **options: Any) -> mlflow.Synced:
        (found,) = mlflow.synchronise(self.guard, self.by, names=[self.name], **options)
        return found

    @property
    def alias(self) -> int | None:
        return self.registry.aliased(self.name, mlflow.ALIAS)

    def tags(self, version: int) -> dict[str, str]:
        found = {one.version: one.tags for one in self.registry.versions(self.name)}
        return dict(found[version])

    @property
    def moves(self) -> list[str]:
        with reading(self.guard.engine) as session:
            return [row.detail for row in acts.of_kind(session, Act.SYNC_MLFLOW)]


@pytest.fixture
def scene(tmp_path: Path, url: str) -> Iterator[Scene]:
    made = Scene(tmp_path, url)
    with closing(made.http), closing(made.registry):
        yield made


def source(folder: str) -> str:
    return f"s3://{BUCKET}/models/{folder}"


def test_the_newest_cleared_version_serves_and_carries_its_verdict(scene: Scene) -> None:
    scene.serve("models/fraud/m.pt", 0, at=1)
    scene.serve("models/odd/m.pt", BACKDOORED, at=2)
    scene.register(source("fraud"))
    scene.register(source("odd"))
    scene.register(source("nowhere"))
    found = scene.sync()

    assert {one.version: one.verdict for one in found.versions} == {
        1: "cleared",
        2: "rejected",
        3: "unknown",
    }
    assert (scene.alias, found.after, found.refused) == (1, 1, "")
    assert scene.tags(1)["guard.verdict"] == "cleared"
    assert scene.tags(1)["guard.sha256"] == scene.models[0]
    assert scene.tags(2)["guard.verdict"] == "rejected"
    assert scene.tags(3) == {"guard.verdict": "unknown"}
    assert scene.moves == ["serving: nothing -> 1"]
    scene.sync()
    assert scene.moves == ["serving: nothing -> 1"], "nothing to do, and no act"


def test_an_alias_on_what_is_not_cleared_is_moved_or_taken_away(scene: Scene) -> None:
    scene.serve("models/odd/m.pt", BACKDOORED, at=1)
    scene.register(source("odd"))
    scene.registry.point(scene.name, mlflow.ALIAS, 1)
    tried = scene.sync(dry_run=True)
    assert (scene.alias, tried.after, scene.moves) == (1, None, [])

    found = scene.sync()
    assert scene.alias is None
    assert "rejected" in found.refused

    scene.serve("models/fraud/m.pt", 0, at=2)
    scene.register(source("fraud"))
    scene.registry.point(scene.name, mlflow.ALIAS, 1)
    scene.sync()
    assert scene.alias == 2


def test_an_alias_that_people_put_on_an_older_cleared_version_stays(scene: Scene) -> None:
    scene.serve("models/fraud/m.pt", 0, at=1)
    scene.serve("models/other/m.pt", 2, at=2)
    scene.register(source("fraud/m.pt"))
    scene.register(source("other"))
    scene.registry.point(scene.name, mlflow.ALIAS, 1)
    scene.sync()
    assert scene.alias == 1

    scene.sync(newest=True)
    assert scene.alias == 2


def test_a_withdrawn_and_an_expired_version_serve_no_more(scene: Scene) -> None:
    scene.serve("models/fraud/m.pt", 0, at=1)
    scene.serve("models/other/m.pt", 2, at=2)
    scene.register(source("fraud"))
    scene.register(source("other"))
    scene.sync()
    withdraw.withdraw(scene.guard, scene.models[2], "a hole", scene.by)
    scene.sync()
    assert scene.alias == 1
    assert scene.tags(2)["guard.verdict"] == mlflow.NOT_SERVABLE

    scene.clock += timedelta(days=40)
    scene.by = people.who(scene.guard, "later", Role.OPERATOR)
    scene.sync()
    assert scene.alias is None


def test_a_new_upload_in_the_same_place_takes_the_alias_until_it_is_cleared(scene: Scene) -> None:
    scene.serve("models/fraud/m.pt", 0, at=1)
    scene.register(source("fraud"))
    scene.sync()
    scan_id = scene.put("models/fraud/m.pt", 2, at=2)
    waiting = scene.sync()
    assert (scene.alias, waiting.versions[0].verdict) == (None, mlflow.PENDING)
    assert scene.tags(1) == {
        **dict.fromkeys(("guard.expires", "guard.policy", "guard.sha256", "guard.verdict_id"), ""),
        "guard.verdict": "pending",
    }

    scene.finish(scan_id)
    scene.sync()
    assert scene.alias == 1


def test_every_upload_under_a_source_must_be_cleared(scene: Scene) -> None:
    scene.serve("models/fraud/a.pt", 0, at=1)
    scene.serve("models/fraud/b.pt", BACKDOORED, at=2)
    scene.register(source("fraud"))

    assert scene.sync().versions[0].verdict == "rejected"
    assert scene.alias is None


def test_what_the_registry_s_users_write_into_tags_counts_for_nothing(scene: Scene) -> None:
    scene.serve("models/odd/m.pt", BACKDOORED, at=1)
    scene.register(source("odd"))
    scene.registry.tag(scene.name, 1, "guard.verdict", "cleared")
    scene.registry.tag(scene.name, 1, "guard.sha256", scene.models[0])
    scene.sync()

    assert scene.alias is None
    assert scene.tags(1)["guard.verdict"] == "rejected"
    assert scene.tags(1)["guard.sha256"] == scene.models[BACKDOORED]


@pytest.mark.parametrize(
    ("place", "mapped", "found"),
    [
        ("s3://b/p/q/", (), ("b", "p/q")),
        ("mlflow-artifacts:/1/m", ("mlflow-artifacts:/=s3://b/base/",), ("b", "base/1/m")),
        ("mlflow-artifacts:/1/m", (), None),
        ("s3://b", (), None),
        ("s3://b/a/../c", (), None),
        ("file:///tmp/x", (), None),
        ("", (), None),
    ],
)
def test_only_a_place_in_s3_is_one(
    place: str, mapped: tuple[str, ...], found: tuple[str, str] | None
) -> None:
    assert mlflow._place(place, mapped) == found


def test_too_many_uploads_under_a_source_are_not_guessed_about(scene: Scene) -> None:
    from guard.store import scans

    scene.put("models/fraud/a.pt")
    scene.put("models/fraud/b.pt")
    with reading(scene.guard.engine) as session, pytest.raises(InputError):
        scans.newest_under(session, BUCKET, "models/fraud", limit=1)


def test_a_reviewer_moves_no_alias(scene: Scene) -> None:
    reviewer = people.who(scene.guard, "rita", Role.REVIEWER)

    with pytest.raises(Forbidden):
        mlflow.synchronise(scene.guard, reviewer)
