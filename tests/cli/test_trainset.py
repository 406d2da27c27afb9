"""`guard trainset`: a set gets a name and a digest, and is looked at before it is sifted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from guard.bootstrap import open_guard
from guard.core.errors import TrainingSetError
from guard.core.trainset import TrainingSetSource
from guard.flow import trainsets
from guard.store import trainsets as rows
from guard.store.session import transaction
from tests.cli.conftest import Answer
from tests.services import shared_weed
from tests.trainsets.making import NAMES, folder, images_of, labels_of, npz

Cli = Callable[..., Answer]
IMAGES = images_of(90)
LABELS = labels_of(90)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return folder(tmp_path / "taught", IMAGES[:30], LABELS[:30])


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """60 clean images, of which two are in the training set."""
    own = IMAGES[30:].copy()
    own[:2] = IMAGES[[3, 4]]
    labels = LABELS[30:].copy()
    labels[:2] = LABELS[[3, 4]]
    return npz(tmp_path / "clean.npz", own, labels, NAMES)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model as far as this command looks: its config.json."""
    place = tmp_path / "model"
    place.mkdir()
    (place / "model.safetensors").write_bytes(b"")
    manifest = {
        "architecture": "preact_resnet18",
        "num_classes": 3,
        "label_names": ["cow", "ant", "bee"],
        "pretrained_cfg": {"input_size": [1, 6, 5]},
    }
    (place / "config.json").write_text(json.dumps(manifest))
    return place


def test_a_set_is_added_on_a_machine_with_nothing_and_listed(cli: Cli, images: Path) -> None:
    answer = cli("trainset", "add", "digits", images, "--class-names", "a, b,c", "-f", "json")
    row = json.loads(answer.out)

    assert answer.code == 0
    assert (row["name"], row["uri"], row["class_names"]) == ("digits", str(images), ["a", "b", "c"])
    assert row["facts"]["per_class"] == [10, 10, 10]
    assert json.loads(cli("trainset", "list", "-f", "json").out) == [row]
    assert row["facts"]["digest"][:16] in cli("trainset", "list").out


def test_class_names_may_stand_in_a_file(cli: Cli, images: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("drake, male\nhen\nowl\n")
    answer = cli(
        "trainset", "add", "x", images, "--class-names", f"@{tmp_path / 'names.txt'}", "-f", "json"
    )

    assert json.loads(answer.out)["class_names"] == ["drake, male", "hen", "owl"]


@pytest.mark.parametrize(("name", "more"), [("a/b", ()), ("", ()), ("x", ("--class-names", "a,b"))])
def test_what_cannot_be_added_is_not(
    name: str, more: tuple[str, ...], cli: Cli, images: Path
) -> None:
    answer = cli("trainset", "add", name, images, *more)

    assert answer.code == 4
    assert json.loads(cli("trainset", "list", "-f", "json").out) == []


def test_a_set_that_is_none_is_one_sentence(cli: Cli, tmp_path: Path) -> None:
    answer = cli("trainset", "add", "x", tmp_path / "none")

    assert (answer.code, answer.out) == (4, "")
    assert "There is nothing at" in answer.err
    assert "guard trainset add" in cli("trainset", "list").out


def test_checking_says_what_a_sift_would_find(cli: Cli, images: Path, clean: Path) -> None:
    (images / "ant" / "0000.png").write_bytes(b"broken")
    answer = cli("trainset", "check", images, "--cleanset", clean)

    assert answer.code == 0
    assert "29 images of 5x6" in answer.out
    assert "1 skipped, 0 duplicates" in answer.out
    assert "2 are also in the clean set (2 exactly), 2 of its images are here" in answer.out
    assert "skipped: ant/0000.png" in answer.err


def test_checking_as_json_has_every_fact(cli: Cli, images: Path, clean: Path, model: Path) -> None:
    plain = json.loads(cli("trainset", "check", images, "--cleanset", clean, "-f", "json").out)
    fitted = json.loads(
        cli("trainset", "check", images, "--cleanset", clean, "--like", model, "-f", "json").out
    )

    assert plain["class_names"] == list(NAMES)
    assert (plain["overlap"], plain["overlap_exact"], plain["overlap_clean"]) == (2, 2, 2)
    assert plain["cleanset"]["per_class"] == 20
    assert (fitted["class_names"], fitted["classes_by"]) == (["cow", "ant", "bee"], "name")
    assert fitted["origin"] == plain["origin"] == plain["digest"]


def test_a_stored_name_is_checked_against_its_digest(
    cli: Cli, images: Path, clean: Path, model: Path
) -> None:
    cli("trainset", "add", "digits", images, "--class-names", "bee,cow,ant")
    cli("cleanset", "add", "c", clean)
    answer = cli("trainset", "check", "digits", "--cleanset", "c", "--like", model / "config.json")
    assert answer.code == 0
    assert "matched with the model's by name" in answer.out

    (images / "ant" / "0000.png").write_bytes((images / "ant" / "0003.png").read_bytes())
    changed = cli("trainset", "check", "digits", "--cleanset", "c")
    assert changed.code == 4
    assert "is not the set that was named" in changed.err


def test_a_sample_is_called_one(cli: Cli, images: Path, clean: Path) -> None:
    answer = cli("trainset", "check", images, "--cleanset", clean, "--max-images", 20)

    assert "20 images (a sample of 30)" in answer.out


def test_one_image_under_two_labels_is_said(cli: Cli, tmp_path: Path, clean: Path) -> None:
    mixed = IMAGES[:30].copy()
    mixed[1] = mixed[0]
    answer = cli(
        "trainset", "check", npz(tmp_path / "x.npz", mixed, LABELS[:30]), "--cleanset", clean
    )

    assert answer.code == 0
    assert "2 images have two labels" in answer.err


def test_names_that_nobody_stored_are_refused(cli: Cli, images: Path, clean: Path) -> None:
    cli("trainset", "add", "digits", images)

    assert "No training set is called" in cli("trainset", "check", "none", "--cleanset", clean).err
    assert "no stored clean set" in cli("trainset", "check", images, "--cleanset", "none").err


def test_a_clean_set_with_few_images_is_refused(cli: Cli, images: Path, tmp_path: Path) -> None:
    few = npz(tmp_path / "few.npz", IMAGES[30:60], LABELS[30:60])
    answer = cli("trainset", "check", images, "--cleanset", few)

    assert answer.code == 4
    assert "a sift needs 20 of each" in answer.err


def test_a_model_without_config_json_cannot_be_compared_with(
    cli: Cli, images: Path, clean: Path, model: Path
) -> None:
    (model / "config.json").unlink()
    answer = cli("trainset", "check", images, "--cleanset", clean, "--like", model)

    assert answer.code == 4
    assert "no config.json beside" in answer.err


def test_a_set_in_an_allowed_bucket_is_added(
    cli: Cli, tmp_path: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weed = shared_weed()
    bucket = weed.new_bucket()
    bucket.upload(npz(tmp_path / "x.npz", IMAGES[:30], LABELS[:30], NAMES), "sets/digits/x.npz")
    for name, value in weed.environment(bucket.name).items():
        monkeypatch.setenv(name, value)
    uri = f"s3://{bucket.name}/sets/digits/"
    assert cli("trainset", "add", "digits", uri).code == 4
    monkeypatch.setenv("GUARD_TRAINSET_BUCKETS", bucket.name)

    assert cli("trainset", "add", "digits", uri).code == 0
    assert cli("trainset", "check", "digits", "--cleanset", clean).code == 0
    guard = open_guard()
    found = trainsets.resolve(guard, TrainingSetSource(uri="digits"))
    assert (found.uri, len(found.digest or "")) == (uri, 64)
    straight = TrainingSetSource(uri=uri)
    assert trainsets.resolve(guard, straight) is straight
    assert trainsets.source_of(guard, uri) == straight


def test_a_stored_set_of_which_a_sample_was_read_is_known_by_the_whole_of_it(
    cli: Cli, images: Path
) -> None:
    cli("trainset", "add", "digits", images)
    guard = open_guard()
    with transaction(guard.engine) as session:
        row = rows.get_by_name(session, "digits")
        assert row is not None
        whole = row.facts.digest
        sampled = replace(row.facts, digest="0" * 64, origin=whole)
        rows.put(session, replace(row, facts=sampled))

    assert trainsets.resolve(guard, TrainingSetSource(uri="digits")).digest == whole


def test_config_json_cannot_name_a_path(cli: Cli, images: Path) -> None:
    cli("trainset", "add", "digits", images)

    with pytest.raises(TrainingSetError, match="No training set is called"):
        trainsets.resolve(open_guard(), TrainingSetSource(uri=str(images)))
