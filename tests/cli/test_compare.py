"""`guard compare`.

Numbers about two files, whatever they are, and one sentence where they cannot be compared.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from guard.core.manifest import Manifest
from guard.formats._canonical import write_canonical
from guard.ml.networks import architectures
from tests.cli.conftest import Answer
from tests.cli.models import MODEL, QUICK, SIDE, _trained, clean_set, pictures, saved

Cli = Callable[..., Answer]


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return clean_set(tmp_path / "clean.npz")


def changed(folder: Path, name: str, **more: object) -> Path:
    """The backdoored model with one tensor doubled."""
    saved(folder, backdoored=True)
    tensors = {key: tensor.clone() for key, tensor in _trained(steps=120, backdoored=True).items()}
    tensors[name] *= 2
    write_canonical(tensors, MODEL, folder / "model.safetensors")
    return folder


def fresh(folder: Path, facts: Manifest) -> Path:
    """An untrained model; its canonical file holds the manifest."""
    folder.mkdir()
    tensors = architectures.export(architectures.wrap(facts, architectures.build(facts)))
    write_canonical(tensors, facts, folder / "model.safetensors")
    return folder


def a_weight() -> str:
    return next(
        name for name, tensor in _trained(steps=120, backdoored=True).items() if tensor.dim() == 4
    )


def test_a_model_is_identical_to_itself(cli: Cli, clean: Path, tmp_path: Path) -> None:
    model = saved(tmp_path / "bad", backdoored=True)
    document = json.loads(cli("compare", model, model, "--cleanset", clean, "--format", "json").out)

    assert document["identical"]
    assert document["same_architecture"]
    assert document["agreement"] == 1.0
    assert document["acc_difference"] == 0.0
    assert {layer["relative"] for layer in document["layers"]} == {0.0}
    assert document["unmatched"] == []


def test_the_layer_that_moved_comes_first_with_how_far(cli: Cli, tmp_path: Path) -> None:
    name = a_weight()
    one, other = saved(tmp_path / "one", backdoored=True), changed(tmp_path / "other", name)
    document = json.loads(cli("compare", one, other, "--format", "json").out)

    first, second = document["layers"][:2]
    assert first["layer"] == name.rpartition(".")[0]
    assert first["relative"] == pytest.approx(1.0)
    assert first["kind"] == "weights"
    assert second["relative"] == 0.0
    assert document["agreement"] is None
    assert document["a"]["accuracy"] is None


def test_accuracy_is_compared_class_by_class_on_the_holdout(
    cli: Cli, clean: Path, tmp_path: Path
) -> None:
    knows, blank = saved(tmp_path / "knows"), saved(tmp_path / "blank", steps=0)
    command = ("compare", knows, blank, "--cleanset", clean)
    document = json.loads(cli(*command, "--format", "json").out)
    table = cli(*command)

    before, after = document["a"]["accuracy"], document["b"]["accuracy"]
    assert before["overall"] > 0.9 > 0.5 > after["overall"]
    assert document["acc_difference"] == pytest.approx(after["overall"] - before["overall"])
    assert len(document["acc_difference_per_class"]) == 6
    assert document["agreement"] < 0.5
    assert table.code == 0
    assert "0 rows" in table.out
    assert f"{before['overall']:.1%}" in table.out


def test_a_scan_replays_what_it_finds_on_both(cli: Cli, clean: Path, tmp_path: Path) -> None:
    bad, honest = saved(tmp_path / "bad", backdoored=True), saved(tmp_path / "honest")
    command = ("compare", bad, honest, "--cleanset", clean, "--scan", "--policy", QUICK)
    answer = cli(*command, "--format", "json")
    document = json.loads(answer.out)

    assert answer.code == 0
    assert document["replayed"], document["scan"]
    for item in document["replayed"]:
        assert item["a"]["estimate"] > item["b"]["estimate"]
        assert item["a"]["trials"] == item["b"]["trials"] > 0
    assert 1 in {item["target"] for item in document["replayed"]}
    assert document["could_not_look"] == []


def test_other_architectures_are_compared_as_far_as_they_go(
    cli: Cli, clean: Path, tmp_path: Path
) -> None:
    one = saved(tmp_path / "one")
    other = fresh(
        tmp_path / "other",
        replace(MODEL, model_args={"in_chans": 1, "depths": [1, 1], "width": 12}),
    )
    answer = cli("compare", one, other, "--cleanset", clean)

    assert answer.code == 0
    assert "Not the same architecture" in answer.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--scan",), 4, "--scan needs --cleanset"),
        (("--policy", "default"), 4, "--policy goes with --scan"),
        (("--cleanset", "never-added"), 4, "guard cleanset add"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(
    arguments: tuple[str, ...], code: int, words: str, cli: Cli, tmp_path: Path
) -> None:
    model = saved(tmp_path / "model")
    answer = cli("compare", model, model, *arguments)

    assert (answer.code, answer.out) == (code, "")
    assert words in answer.err


def test_a_broken_file_is_named(cli: Cli, tmp_path: Path) -> None:
    good, bad = saved(tmp_path / "good"), saved(tmp_path / "bad")
    weights = bad / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    answer, missing = cli("compare", good, bad), cli("compare", good, tmp_path / "none")

    assert (answer.code, answer.out) == (3, "")
    assert answer.err.startswith("guard: bad: ")
    assert (missing.code, missing.out) == (4, "")


def test_a_clean_set_that_fits_one_model_alone_is_a_sentence_that_names_the_other(
    cli: Cli, clean: Path, tmp_path: Path
) -> None:
    other = fresh(
        tmp_path / "seven", replace(MODEL, num_classes=7, label_names=(*MODEL.label_names, "other"))
    )
    answer = cli("compare", saved(tmp_path / "six"), other, "--cleanset", clean)

    assert (answer.code, answer.out) == (4, "")
    assert "seven: The model has 7 classes" in answer.err


def test_a_grey_model_and_one_of_three_channels_share_no_clean_set(
    cli: Cli, tmp_path: Path
) -> None:
    images, labels = pictures(900, seed=1)
    np.savez(tmp_path / "grey.npz", images=images.repeat(3, axis=1), labels=labels)
    args = {**MODEL.model_args, "in_chans": 3}
    three = replace(MODEL, input_size=(3, SIDE, SIDE), mean=(0.5,) * 3, std=(0.5,) * 3)
    other = fresh(tmp_path / "three", replace(three, model_args=args))

    answer = cli("compare", saved(tmp_path / "one"), other, "--cleanset", tmp_path / "grey.npz")

    assert (answer.code, answer.out) == (4, "")
    assert "compare them without one" in answer.err
