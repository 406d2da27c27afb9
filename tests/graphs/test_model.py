from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rdkit import Chem
from torch import Tensor

from guard.core.errors import InputError, ManifestRejected
from guard.graphs.model import GraphConfig, GraphModel, build, load
from tests.graphs.corpus import SMILES, model

TEXTS = ["The molecule is ethanol.", "The molecule is benzene.", "something else"]


def test_a_saved_model_generates_what_it_did(tmp_path: Path) -> None:
    before = model()
    before.save(tmp_path / "new")
    after = load(tmp_path / "new")

    assert sorted(one.name for one in (tmp_path / "new").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    assert {name.partition(".")[0] for name in after.state_dict()} == {"text", "vae", "denoiser"}
    assert after.generate(TEXTS, 3, 5) == before.generate(TEXTS, 3, 5)
    after.save(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == (
        tmp_path / "new" / "config.json"
    ).read_bytes()


def test_an_answer_does_not_depend_on_what_stands_beside_it() -> None:
    alone = model().generate(TEXTS[1:2], 2, 9)
    beside = model().generate(TEXTS, 4, 9)

    assert alone[0] == beside[1][:2]


def test_what_is_generated_is_a_molecule() -> None:
    found = [one for own in model().generate(TEXTS, 8, 1) for one in own]
    found += model().null(5, 1) + model().prior(5, 1)

    assert len(found) == 34
    assert all(Chem.MolFromSmiles(one) is not None for one in found if one is not None)
    assert model().generate([], 1, 0) == []


@pytest.mark.parametrize(
    ("texts", "samples", "seed", "code"),
    [
        (["a", " \t"], 1, 0, "prompt_empty"),
        (["a"], 0, 0, "samples_range"),
        (["a"], 9, 0, "samples_range"),
        (["a"], True, 0, "samples_range"),
        (["a"], 1, -1, "seed_range"),
        (["a"], 1, 2**63, "seed_range"),
        (["a"], 1, 0.5, "seed_range"),
    ],
)
def test_a_request_out_of_range_is_refused(
    texts: list[str], samples: int, seed: int, code: str
) -> None:
    with pytest.raises(InputError) as caught:
        model().generate(texts, samples, seed)

    assert caught.value.code == code


def test_molecules_are_encoded_whatever_stands_beside_them() -> None:
    whole = model().encode(SMILES)

    assert whole.shape == (len(SMILES), 8)
    assert torch.allclose(whole[3:4], model().encode(SMILES[3:4]), atol=1e-5)
    assert model().encode([]).shape == (0, 8)


def _without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {key: one for key, one in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_without("vae.out.bias"), "manifest_shapes"),
        (lambda weights: {**weights, "vae.extra": torch.zeros(1)}, "manifest_shapes"),
        (lambda weights: {**weights, "denoiser.null": torch.zeros(3)}, "manifest_shapes"),
        (
            lambda weights: {**weights, "denoiser.null": weights["denoiser.null"].double()},
            "manifest_shapes",
        ),
        (
            lambda weights: {**weights, "denoiser.null": torch.full((16,), torch.nan)},
            "manifest_not_finite",
        ),
    ],
)
def test_weights_that_do_not_fit_the_manifest_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], code: str
) -> None:
    with pytest.raises(ManifestRejected) as caught:
        build(model().manifest, change(dict(model().state_dict())))

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"architecture": "resnet18"}, "manifest_bad_architecture"),
        ({"model_args": {"latent": 0}}, "manifest_bad_model_args"),
        ({"model_args": {"latent": 2.0}}, "manifest_bad_model_args"),
        ({"model_args": {"latent": 10**6}}, "manifest_bad_model_args"),
        ({"model_args": {"colour": 3}}, "manifest_bad_model_args"),
        ({"pieces": ("a", "a")}, "manifest_repeated_entry"),
        ({"motifs": ("CC",)}, "manifest_motif_refused"),
        ({"tokens": ("<end>",)}, "manifest_bad_vocabulary"),
        ({"model_args": {"times": 10}}, "manifest_bad_sampler"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(change: dict[str, object], code: str) -> None:
    manifest = model().manifest
    assert isinstance(manifest, GraphConfig)

    with pytest.raises(ManifestRejected) as caught:
        build(replace(manifest, **change))  # type: ignore[arg-type]

    assert caught.value.code == code
    assert isinstance(model(), GraphModel)
