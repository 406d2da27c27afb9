"""Training sets come out of a real bucket as they were listed, or not at all."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.bootstrap import open_guard
from guard.core.errors import TrainingSetError, Unavailable
from guard.core.trainset import TrainingSetSource
from guard.events.bucket import Bucket, ObjectFacts
from guard.flow import _trainset_files as files
from guard.flow import trainsets
from guard.flow.context import Guard
from guard.settings import Settings
from tests.services import shared_weed
from tests.trainsets.making import NAMES, folder, images_of, labels_of, npz

IMAGES, LABELS = images_of(12), labels_of(12)


@pytest.fixture(scope="module")
def bucket() -> Bucket:
    return shared_weed().new_bucket()


@pytest.fixture
def guard(bucket: Bucket, tmp_path: Path) -> Guard:
    weed = shared_weed()
    env = weed.environment(bucket.name)
    settings = Settings(
        data_dir=tmp_path / "data",
        s3_endpoint=env["GUARD_S3_ENDPOINT"],
        trainset_buckets=(bucket.name,),
    )
    return replace(open_guard(settings), make_bucket=lambda name: Bucket(weed.client(), name))


@pytest.fixture
def prefix(bucket: Bucket, tmp_path: Path) -> str:
    """A class folder set under a prefix of its own."""
    prefix = f"{tmp_path.name}/"
    root = folder(tmp_path / "local", IMAGES, LABELS)
    for path in root.rglob("*.png"):
        bucket.upload(path, prefix + path.relative_to(root).as_posix())
    return prefix


@pytest.fixture
def into(tmp_path: Path) -> Path:
    place = tmp_path / "into"
    place.mkdir()
    return place


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_all_objects_of_a_prefix_are_copied_under_their_keys(
    guard: Guard, bucket: Bucket, prefix: str, tmp_path: Path, into: Path
) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=prefix + "ant/", Body=b"")
    seen: list[float] = []
    place = files.fetch(
        guard,
        f"s3://{bucket.name}/{prefix}",
        into,
        progress=lambda done, note="": seen.append(done),
    )

    assert place == into
    assert contents(into) == contents(tmp_path / "local")
    assert seen[-1] == 1.0


def test_only_the_latest_versions_are_copied_and_deleted_objects_are_not(
    guard: Guard, bucket: Bucket, prefix: str, into: Path
) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=prefix + "ant/0000.png", Body=b"newer")
    bucket.client.delete_object(Bucket=bucket.name, Key=prefix + "bee/0001.png")
    files.fetch(guard, f"s3://{bucket.name}/{prefix}", into)

    assert (into / "ant" / "0000.png").read_bytes() == b"newer"
    assert not (into / "bee" / "0001.png").exists()


def test_one_file_is_a_set_too(guard: Guard, bucket: Bucket, tmp_path: Path, into: Path) -> None:
    local = npz(tmp_path / "digits.npz", IMAGES, LABELS, NAMES)
    bucket.upload(local, "one/digits.npz")
    bucket.upload(local, "top.npz")

    assert files.fetch(guard, f"s3://{bucket.name}/one/digits.npz", into) == into / "digits.npz"
    assert files.fetch(guard, f"s3://{bucket.name}/top.npz", into) == into / "top.npz"
    assert contents(into)["digits.npz"] == local.read_bytes()


def refused(guard: Guard, uri: str, into: Path, code: str) -> None:
    with pytest.raises(TrainingSetError) as found:
        files.fetch(guard, uri, into)
    assert found.value.code == f"trainset_{code}"


@pytest.mark.threat("C12")
def test_a_foreign_bucket_is_refused_before_anything_is_asked(
    guard: Guard, prefix: str, into: Path
) -> None:
    def never(name: str) -> Bucket:
        raise AssertionError(name)

    refused(replace(guard, make_bucket=never), f"s3://models/{prefix}", into, "foreign_bucket")
    closed = replace(guard.settings, trainset_buckets=())
    uri = f"s3://{guard.settings.trainset_buckets[0]}/{prefix}"
    refused(replace(guard, make_bucket=never, settings=closed), uri, into, "foreign_bucket")


@pytest.mark.parametrize(
    ("uri", "code"),
    [("none/", "not_found"), ("none.npz", "not_found"), ("none", "bad_uri"), ("", "bad_uri")],
)
def test_an_address_with_nothing_is_refused(
    uri: str, code: str, guard: Guard, bucket: Bucket, into: Path
) -> None:
    refused(guard, f"s3://{bucket.name}/{uri}", into, code)


def test_a_set_over_the_limit_is_refused_before_it_is_read(
    guard: Guard, bucket: Bucket, prefix: str, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(guard, settings=replace(guard.settings, max_trainset_bytes=100))
    uri = f"s3://{bucket.name}/{prefix}"
    refused(small, uri, into, "too_large")
    monkeypatch.setattr(files, "MAX_OBJECTS", 11)
    refused(guard, uri, into, "too_large")

    assert contents(into) == {}


def test_a_set_that_does_not_fit_the_disk_is_refused(
    guard: Guard, bucket: Bucket, prefix: str, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 10

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Full)

    refused(guard, f"s3://{bucket.name}/{prefix}", into, "too_large")


@pytest.mark.parametrize(
    "key", ["../out.png", "a//b.png", "./x.png", "a\\b.png", "x\ny.png", "n" * 256]
)
def test_a_key_that_is_no_plain_name_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingSetError, match="rename the object") as found:
        files._place(tmp_path, f"sets/{key}", "sets/")

    assert found.value.code == "trainset_bad_key"


def facts_of(bucket: Bucket, key: str) -> ObjectFacts:
    return bucket.head(key)


def test_a_key_that_is_a_folder_of_others_is_refused(bucket: Bucket, into: Path) -> None:
    for key in ("both/a", "both/b"):
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"x")
    found = [facts_of(bucket, "both/a"), facts_of(bucket, "both/b")]
    with pytest.raises(TrainingSetError, match="is also the folder"):
        files._copy(bucket, found, [into / "a", into / "a" / "b"], lambda done, note="": None)


@pytest.fixture
def replacing(
    guard: Guard, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[str], Any]], Guard]:
    """A guard whose bucket is changed between the listing and the first read."""

    def make(change: Callable[[str], Any]) -> Guard:
        class Moving(Bucket):
            def stream(self, facts: ObjectFacts, chunk: int = 1 << 20) -> Iterator[bytes]:
                change(facts.key)
                return super().stream(facts, chunk)

        return replace(guard, make_bucket=lambda name: Moving(bucket.client, name))

    return make


def test_a_replaced_object_is_read_in_the_version_that_was_listed(
    replacing: Callable[..., Guard], bucket: Bucket, prefix: str, tmp_path: Path, into: Path
) -> None:
    moving = replacing(
        lambda key: bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"other")
    )
    files.fetch(moving, f"s3://{bucket.name}/{prefix}", into)

    assert contents(into) == contents(tmp_path / "local")


def test_without_versions_a_replaced_object_is_one_error(
    guard: Guard, tmp_path: Path, into: Path
) -> None:
    bucket = shared_weed().new_bucket(versioned=False)
    bucket.upload(npz(tmp_path / "x.npz", IMAGES, LABELS), "set/x.npz")

    class Moving(Bucket):
        def stream(self, facts: ObjectFacts, chunk: int = 1 << 20) -> Iterator[bytes]:
            self.client.put_object(Bucket=self.name, Key=facts.key, Body=b"other")
            return super().stream(facts, chunk)

    moving = replace(
        guard,
        settings=replace(guard.settings, trainset_buckets=(bucket.name,)),
        make_bucket=lambda name: Moving(bucket.client, name),
    )

    refused(moving, f"s3://{bucket.name}/set/", into, "changed")


def test_a_store_that_does_not_answer_is_tried_later(
    guard: Guard, bucket: Bucket, into: Path
) -> None:
    away = replace(guard, settings=replace(guard.settings, trainset_buckets=("no-such-bucket",)))

    with pytest.raises(Unavailable):
        files.fetch(away, "s3://no-such-bucket/set/", into)


def test_a_set_in_a_bucket_is_read_by_a_child_that_has_no_credentials(
    guard: Guard, bucket: Bucket, prefix: str, into: Path
) -> None:
    uri = f"s3://{bucket.name}/{prefix}"
    train = trainsets.read(guard, TrainingSetSource(uri=uri), into)

    assert not any("KEY" in name or "S3" in name for name in guard.child_environment)
    assert (train.facts.uri, train.facts.images) == (uri, 12)
    assert train.facts.class_names == NAMES
    assert np.array_equal(np.sort(train.labels), np.sort(LABELS))
    assert not (into / "source").exists()
    assert json.loads((into / "set" / "facts.json").read_text())["uri"] == uri
    assert [path.name for path in into.iterdir()] == ["set"]
