"""What every publisher must hold to.

A new one needs a `Target` here: how to look behind its back.
"""

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from guard.attest.gate import Approved
from guard.core.contracts import Publisher, Receipt, Smoke
from guard.core.errors import InputError, IntegrityMismatch
from guard.publishers import PUBLISHERS
from tests.publishers.inference_site import the_server
from tests.publishers.making import Authority, Vetted, flip, vetted
from tests.publishers.serving_site import the_site


@dataclass(frozen=True)
class Target:
    """A publisher and what an intruder with access to its files could do."""

    publisher: Publisher
    authority: Authority
    served_weights: Callable[[str], Path]  # of a name, as the serving system reads them
    smuggle: Callable[[str, bytes], None]  # put something there under a name, unpublished
    files: Callable[[], list[str]]  # everything that lies where models lie


def folder_target(tmp_path: Path) -> Target:
    root = tmp_path / "served"

    def smuggle(name: str, data: bytes) -> None:
        (root / name / "1.0").mkdir(parents=True)
        (root / name / "1.0" / "weights.safetensors").write_bytes(data)

    return Target(
        PUBLISHERS.get("folder")(root),  # type: ignore[call-arg]
        Authority(tmp_path / "keys" / "trusted.json"),
        lambda name: next(root.glob(f"{name}/*/weights.safetensors")),
        smuggle,
        lambda: sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()),
    )


def torchserve_target(tmp_path: Path) -> Target:
    site = the_site()
    site.clear()

    def smuggle(name: str, data: bytes) -> None:
        with zipfile.ZipFile(site.store / f"{name}.mar", "w") as archive:
            model = {"modelName": name, "handler": "guard.serving.handler", "modelVersion": "1.0"}
            archive.writestr(
                "MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": model})
            )
            archive.writestr("weights.safetensors", data)
        site.api.register(f"{name}.mar", startup_seconds=30, response_seconds=5)

    def files() -> list[str]:
        return [path.name for path in (*site.store.iterdir(), *site.extracts)]

    return Target(
        site.publisher(),
        site.authority,
        lambda name: next(
            folder / "weights.safetensors"
            for folder in site.extracts
            if f'"{name}"' in (folder / "MAR-INF" / "MANIFEST.json").read_text()
        ),
        smuggle,
        files,
    )


def open_inference_target(tmp_path: Path) -> Target:
    site = the_server()
    site.clear()

    def smuggle(name: str, data: bytes) -> None:
        folder = site.store / name / "1.0"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(data)
        (folder / "release.dsse.json").write_text("{}")
        with suppress(IntegrityMismatch):
            site.api.load(name, "1.0")

    return Target(
        site.publisher(),
        site.authority,
        lambda name: next(site.store.glob(f"{name}/*/model.onnx")),
        smuggle,
        lambda: sorted(str(one.relative_to(site.store)) for one in site.store.rglob("*")),
    )


TARGETS = {
    "folder": folder_target,
    "open_inference": open_inference_target,
    "torchserve": torchserve_target,
}


@pytest.fixture(params=PUBLISHERS.names())
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    made = TARGETS[request.param](tmp_path)
    yield made
    if request.param == "torchserve":
        the_site().clear()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Vetted:
    return vetted(tmp_path_factory.mktemp("models"), seed=1)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Vetted:
    return vetted(tmp_path_factory.mktemp("models"), seed=2)


def brought(target: Target, approved: Approved, weights: BinaryIO, smoke: Smoke) -> Receipt:
    """What the publish stage does with what the gate approved."""
    target.publisher.prepare(approved.digest, weights)
    return target.publisher.publish(approved, weights, smoke)


def publish(
    target: Target, model: Vetted, name: str, version: str = "1.0", **options: Any
) -> Receipt:
    with model.open() as weights:
        served = target.publisher.prepare(model.digest, weights)
        approved = target.authority.approve(model.digest, name, version, served=served, **options)
        return target.publisher.publish(approved, weights, model.smoke)


def listed(target: Target) -> list[tuple[str, str, str | None, bool, bool]]:
    return [
        (one.name, one.version, one.digest, one.ready, one.default)
        for one in target.publisher.state()
    ]


@pytest.mark.row(41)
def test_what_is_published_is_listed_ready_and_default_and_again_gives_the_same_receipt(
    target: Target, first: Vetted
) -> None:
    verdict = target.authority.envelope(first.digest, "digits")
    receipts = []
    for _ in range(2):  # the second is signed anew, as after a crash
        with first.open() as weights:
            served = target.publisher.prepare(first.digest, weights)
            approved = target.authority.approve(
                first.digest, "digits", envelope=verdict, served=served
            )
            receipts.append(target.publisher.publish(approved, weights, first.smoke))

    assert receipts[0] == receipts[1]
    assert (receipts[0].digest, receipts[0].name, receipts[0].version) == (
        first.digest,
        "digits",
        "1.0",
    )
    assert listed(target) == [("digits", "1.0", first.digest, True, True)]


def test_a_new_version_takes_over_and_the_old_one_and_its_files_are_gone(
    target: Target, first: Vetted, second: Vetted
) -> None:
    publish(target, first, "digits", "1.0")
    count = len(target.files())
    publish(target, second, "digits", "2.0")

    assert listed(target) == [("digits", "2.0", second.digest, True, True)]
    assert len(target.files()) == count


def test_a_renewed_verdict_replaces_the_release(target: Target, first: Vetted) -> None:
    one = publish(target, first, "digits", seconds=100.0)
    other = publish(target, first, "digits", seconds=200.0)

    assert one.archive_digest != other.archive_digest
    assert listed(target) == [("digits", "1.0", first.digest, True, True)]


@pytest.mark.row(5)
def test_other_bytes_than_the_approved_are_refused_and_leave_nothing(
    target: Target, first: Vetted, second: Vetted
) -> None:
    before = target.files()
    approved = target.authority.approve(first.digest, "digits")
    with second.open() as weights, pytest.raises(IntegrityMismatch):
        brought(target, approved, weights, first.smoke)

    assert listed(target) == []
    assert target.files() == before


@pytest.mark.threat("A12")
def test_withdrawing_leaves_no_listing_and_no_file_and_twice_is_harmless(
    target: Target, first: Vetted
) -> None:
    publish(target, first, "digits")
    target.publisher.withdraw("digits", "1.0")
    target.publisher.withdraw("digits", "1.0")
    target.publisher.withdraw("never", "1.0")

    assert listed(target) == []
    assert target.files() == []


@pytest.mark.row(43)
@pytest.mark.threat("A08")
def test_a_flipped_byte_in_what_is_served_is_told(target: Target, first: Vetted) -> None:
    publish(target, first, "digits")
    flip(target.served_weights("digits"))
    (one,) = target.publisher.state()

    assert one.digest != first.digest
    assert one.detail["problem"]


def test_what_came_in_behind_the_back_is_listed_and_can_be_withdrawn(
    target: Target, first: Vetted
) -> None:
    target.smuggle("evil", first.path.read_bytes())
    (one,) = target.publisher.state()
    target.publisher.withdraw("evil", "1.0")

    assert (one.name, one.version) == ("evil", "1.0")
    assert one.detail["problem"]
    assert listed(target) == []
    assert target.files() == []


@pytest.mark.threat("A06")
@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("../up", "1.0"),
        ("a/b", "1.0"),
        ("Big", "1.0"),
        ("ok", ".."),
        ("ok", "1/2"),
        ("x" * 64, "1.0"),
    ],
)
def test_names_that_would_mean_something_else_are_refused(
    tmp_path: Path, first: Vetted, name: str, version: str
) -> None:
    target = folder_target(tmp_path)
    with pytest.raises(InputError):
        publish(target, first, name, version)

    assert listed(target) == []


def test_every_publisher_has_a_target() -> None:
    assert sorted(TARGETS) == PUBLISHERS.names()
