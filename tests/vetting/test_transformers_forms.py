"""Models of transformers become networks of timm that give the logits which transformers gave."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.transformers_golden import PREPROCESSOR, images, models, weights
from guard.core.digests import canonical_json
from guard.core.errors import ArtifactRejected
from guard.core.manifest import Manifest
from guard.formats._write import write_tensors
from guard.ml.networks import architectures
from guard.offline_inputs import inspect_at
from guard.store.rows import ScanRow
from guard.vetting import examine
from tests.flow.intake import World, new_world
from tests.formats.jailing import needs_jail
from tests.vetting.test_forms import inspected


def put(folder: Path, name: str, tensors: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """Write a golden model's files as a hub has them; its golden values."""
    golden: dict[str, Any] = models()[name]
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(golden["config"]))
    size = {"height": golden["side"], "width": golden["side"]}
    (folder / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSOR, "size": size}))
    if tensors is None:
        tensors = weights(golden["shapes"])
    with (folder / "model.safetensors").open("wb") as file:
        write_tensors(tensors, {}, file.write)
    return golden


def differs(found: examine.Inspected, golden: dict[str, Any]) -> float:
    """The largest difference from the logits that transformers gave."""
    model = examine.open_model(found.canonical, device="cpu")
    with torch.no_grad():
        logits = model(images(golden["config"].get("num_channels", 3), golden["side"]))
    return float((logits - torch.tensor(golden["logits"])).abs().max())


@pytest.mark.parametrize("name", models())
def test_the_network_of_timm_gives_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    golden = put(tmp_path / "model", name)

    found = inspect_at(tmp_path / "model", tmp_path)

    assert differs(found, golden) < 1e-4
    assert isinstance(found.manifest, Manifest)
    assert (found.manifest.naming, found.manifest.assumed) == (None, ())
    assert set(found.manifest.mean) == {0.5}


def in_memory(name: str) -> dict[str, Tensor]:
    """The golden weights by the names of the module, with a wrapper before them."""
    golden = models()[name]
    held = weights(golden["shapes"])
    return {f"module.{new}": held[old] for old, new in pairs(golden["shapes"], golden["memory"])}


def pairs(shapes: dict[str, Any], memory: list[str]) -> Iterator[tuple[str, str]]:
    """The name in a file and in memory of each tensor, by how transformers 5 renamed them."""
    for old in shapes:
        new = old
        for before, after in (
            ("encoder.layer.", "layers."),
            (".attention.attention.", ".attention."),
            (".attention.self.relative_position_", ".attention.self.X."),
            (".attention.self.X.", ".attention.relative_position_bias.relative_position_"),
            (".attention.self.", ".attention."),
            (".query.", ".q_proj."),
            (".key.", ".k_proj."),
            (".value.", ".v_proj."),
            (".attention.output.dense.", ".attention.o_proj."),
            (".intermediate.dense.", ".mlp.fc1."),
            (".output.dense.", ".mlp.fc2."),
        ):
            new = new.replace(before, after)
        assert new in memory or new == old
        yield old, new


@pytest.mark.parametrize("name", ["vit", "deit", "deit of one token", "swin"])
def test_names_of_the_module_in_memory_are_read_too(name: str, tmp_path: Path) -> None:
    put(tmp_path / "file", name)
    put(tmp_path / "memory", name, in_memory(name))
    one, other = tmp_path / "1", tmp_path / "2"
    one.mkdir()
    other.mkdir()

    digests = {
        inspect_at(tmp_path / "file", one).digest,
        inspect_at(tmp_path / "memory", other).digest,
    }

    assert len(digests) == 1


@needs_jail
def test_a_checkpoint_and_shards_have_the_digest_of_the_one_file(tmp_path: Path) -> None:
    golden = put(tmp_path / "one", "vit")
    digests = {inspect_at(tmp_path / "one", tmp_path).digest}
    held = weights(golden["shapes"])
    put(tmp_path / "pickle", "vit")
    (tmp_path / "pickle" / "model.safetensors").unlink()
    torch.save(held, tmp_path / "pickle" / "pytorch_model.bin")
    digests.add(inspect_at(tmp_path / "pickle", tmp_path).digest)
    put(tmp_path / "shards", "vit")
    (tmp_path / "shards" / "model.safetensors").unlink()
    listed = {}
    for place in (1, 2):
        name = f"model-0000{place}-of-00002.safetensors"
        part = dict(list(held.items())[place - 1 :: 2])  # queries apart from keys
        listed.update(dict.fromkeys(part, name))
        with (tmp_path / "shards" / name).open("wb") as file:
            write_tensors(part, {}, file.write)
    index = tmp_path / "shards" / "model.safetensors.index.json"
    index.write_bytes(canonical_json({"metadata": {}, "weight_map": listed}))
    digests.add(inspect_at(tmp_path / "shards", tmp_path).digest)

    assert len(digests) == 1


def test_a_known_network_is_the_upload_that_timm_makes() -> None:
    config = {"model_type": "resnet", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
    found = Manifest.from_dict({**config, "layer_type": "basic", "image_size": 32})

    assert (found.architecture, found.model_args, found.num_classes) == ("resnet18", {}, 2)
    assert found.input_size == (3, 32, 32)


def changed(name: str, **changes: Any) -> dict[str, Tensor]:
    """The golden weights with some of them replaced, or left out where the value is None."""
    held = {**weights(models()[name]["shapes"]), **changes}
    return {key: value for key, value in held.items() if value is not None}


BIAS = "vit.encoder.layer.0.attention.attention.key.bias"


@pytest.mark.parametrize(
    ("changes", "says", "code"),
    [
        ({"extra.weight": torch.ones(2)}, r"does not, extra\.weight", "architecture_mismatch"),
        ({BIAS: None}, r"lacks blocks\.0\.attn\.qkv\.bias", "architecture_mismatch"),
        ({BIAS: torch.ones(3)}, r"lacks blocks\.0\.attn\.qkv\.bias", "architecture_mismatch"),
        ({"classifier.bias": torch.ones(7)}, r"head\.bias as F32\[7\]", "architecture_mismatch"),
        ({"module.classifier.bias": torch.ones(4)}, r"module\.head\.bias", "architecture_mismatch"),
        ({"vit.classifier.bias": torch.ones(4)}, "are the same one", "ambiguous_checkpoint"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    changes: dict[str, Any], says: str, code: str, tmp_path: Path
) -> None:
    put(tmp_path / "model", "vit", changed("vit", **changes))

    with pytest.raises(ArtifactRejected, match=says) as caught:
        inspect_at(tmp_path / "model", tmp_path)

    assert caught.value.code == code


def test_what_the_class_does_not_use_is_left_out(tmp_path: Path) -> None:
    more = {
        "vit.pooler.dense.weight": torch.ones(12, 12),
        "vit.embeddings.mask_token": torch.ones(1),
    }
    golden = put(tmp_path / "model", "vit", changed("vit", **more))

    assert differs(inspect_at(tmp_path / "model", tmp_path), golden) < 1e-4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = new_world(tmp_path_factory.mktemp("world"))
    made.set_rules(max_upload_bytes=1 << 24, manifest_grace_seconds=30.0)
    yield made
    made.engine.dispose()


def scans_of(world: World, name: str) -> list[ScanRow]:
    return [one for one in world.scans() if one.key.startswith(f"models/{name}/")]


def test_intake_waits_for_the_preprocessor_and_gives_the_answer_of_the_desk(
    world: World, tmp_path: Path
) -> None:
    put(tmp_path / "model", "resnet")
    desk = inspect_at(tmp_path / "model", tmp_path)
    for name in ("config.json", "model.safetensors"):
        world.put(f"models/late/{name}", (tmp_path / "model" / name).read_bytes())
    world.nominate("models/late/model.safetensors")
    world.work()
    assert not scans_of(world, "late")
    file = "preprocessor_config.json"
    world.put(f"models/late/{file}", (tmp_path / "model" / file).read_bytes())
    world.pass_time(3)
    world.work()
    (scan,) = scans_of(world, "late")

    answer = inspected(world, scan, tmp_path)

    assert isinstance(answer, examine.Inspected)
    assert answer.digest == desk.digest


def test_without_the_preprocessor_the_verdict_says_what_was_assumed(
    world: World, tmp_path: Path
) -> None:
    put(tmp_path / "model", "vit")
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    for name in ("config.json", "model.safetensors"):
        world.put(f"models/alone/{name}", (tmp_path / "model" / name).read_bytes())
    world.nominate("models/alone/model.safetensors")
    world.work()
    world.pass_time(31)
    world.work()
    (scan,) = scans_of(world, "alone")

    answer = inspected(world, scan, tmp_path)

    assert isinstance(answer, examine.Inspected)
    assert isinstance(answer.manifest, Manifest)
    assert answer.manifest.assumed == ("mean", "std")
    assert answer.digest == inspect_at(tmp_path / "model", tmp_path).digest


def test_a_preprocessor_too_large_to_read_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "model", "vit")
    (tmp_path / "model" / "preprocessor_config.json").write_text("{" + " " * (1 << 16) + "}")

    with pytest.raises(ArtifactRejected, match="larger than 65536 bytes"):
        inspect_at(tmp_path / "model", tmp_path)


@pytest.mark.parametrize("eps", [-1.0, 0.5, True])
def test_a_number_added_to_the_variance_has_bounds(eps: float) -> None:
    args = {"layer_norm_eps": eps, "embed_dim": 12, "num_heads": 2, "depth": 1, "patch_size": 8}
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 4, "model_args": args}

    with pytest.raises(ArtifactRejected, match="layer_norm_eps must lie in"):
        architectures.expected(Manifest.from_dict({**config, "input_size": [3, 16, 16]}))


def test_a_network_without_such_a_norm_takes_no_number_for_it() -> None:
    config = {"architecture": "resnet18", "num_classes": 4, "model_args": {"head_norm_eps": 1e-6}}

    with pytest.raises(ArtifactRejected, match="head_norm_eps must lie in"):
        architectures.expected(Manifest.from_dict({**config, "input_size": [3, 32, 32]}))
