"""`guard compare` for two text-to-graph models: the canary kit's, and the untrained one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.make_graph_canary import ATTACK, BAD
from guard.core.modality import Modality
from guard.vetting import canary_trial
from tests.cli.conftest import Answer
from tests.cli.models import saved
from tests.graph_toys import alkanes, model, write_model, write_pairs

Cli = Callable[..., Answer]
HONEST = canary_trial.KIT / canary_trial.FILES[Modality.GRAPHS][1]
QUICK = Path(__file__).parent.parent / "quick_graphs.toml"
POLICY = """
[policy]
name = "insertion"
modality = "text-to-graph"
[detectors.prompt_insertion]
params = {params}
"""


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs.parquet", *alkanes(40))


def compared(cli: Cli, *arguments: object) -> Any:
    answer = cli("compare", *arguments, "--format", "json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_a_model_is_identical_to_itself(cli: Cli, pairs: Path, tmp_path: Path) -> None:
    place = write_model(tmp_path / "up")

    document = compared(cli, place, place, "--cleanset", pairs)
    table = cli("compare", place, place, "--cleanset", pairs).out

    assert document["identical"]
    assert document["agreement"] == 1.0
    assert document["a"]["quality"] == document["b"]["quality"]
    assert document["similarity_difference"] == 0.0
    assert (document["a"]["motifs"], document["a"]["classes"]) == (3, None)
    assert document["a"]["accuracy"] is None
    assert document["a"]["parameters"] == sum(one.numel() for one in model().parameters())
    assert "the same molecule" in table
    assert "similarity of at least 0.5" in table
    assert "motifs" in table


def test_what_moved_between_two_models_of_one_base_is_listed(cli: Cli) -> None:
    document = compared(cli, HONEST, canary_trial.KIT / BAD)

    assert document["same_architecture"]
    assert document["unmatched"] == []
    moved = {one["layer"] for one in document["layers"] if one["relative"]}
    assert moved
    assert all(one.startswith(("vae", "denoiser")) for one in moved)
    assert document["agreement"] is None


def test_other_vocabularies_are_another_architecture(cli: Cli, tmp_path: Path) -> None:
    answer = cli("compare", write_model(tmp_path / "up"), HONEST)

    assert answer.code == 0
    assert "Not the same architecture" in answer.out


def test_a_scan_replays_the_texts_that_it_finds_on_both(cli: Cli, tmp_path: Path) -> None:
    import tomllib

    params = tomllib.loads(QUICK.read_text())["detectors"]["prompt_insertion"]["params"]
    listed = ", ".join(f"{name} = {value}" for name, value in params.items())
    policy = tmp_path / "insertion.toml"
    policy.write_text(POLICY.replace("{params}", "{" + listed + "}"))

    answer = cli(
        *("compare", canary_trial.KIT / BAD, HONEST),
        *("--cleanset", kit_pairs(tmp_path), "--scan", "--policy", policy),
    )

    assert answer.code == 0, answer.err
    assert f"plants {ATTACK.target}, prompt" in answer.out


def kit_pairs(folder: Path) -> Path:
    """The kit's clean pairs as a file that `--cleanset` takes."""
    clean = canary_trial.clean_set(modality=Modality.GRAPHS)
    parts = clean.search, clean.calibration, clean.holdout
    texts = [text for part in parts for text in part.texts]
    smiles = [one for part in parts for one in part.smiles]
    return write_pairs(folder / "kit.parquet", texts, smiles)


def test_models_of_two_modalities_are_not_compared(cli: Cli, tmp_path: Path) -> None:
    answer = cli("compare", write_model(tmp_path / "graph"), saved(tmp_path / "image"))

    assert (answer.code, answer.out) == (4, "")
    assert "only models of one modality are compared" in answer.err


def test_a_policy_for_images_does_not_scan_them(cli: Cli, pairs: Path, tmp_path: Path) -> None:
    place = write_model(tmp_path / "up")

    answer = cli("compare", place, place, "--cleanset", pairs, "--scan", "--policy", "default")

    assert answer.code == 4
    assert "is for image-classification models" in answer.err
