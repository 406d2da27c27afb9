"""What costs too much is unvettable, from shapes alone and before anything is allocated."""

import json
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from guard import offline
from guard.core.contracts import Budget
from guard.core.errors import CleanSetError, ManifestRejected
from guard.core.states import Verdict
from guard.flow import run_stage
from guard.flow.report import report_for
from guard.formats._canonical import write_canonical
from guard.ml.networks import architectures
from guard.vetting import examine, modalities
from tests.cli import models
from tests.flow.place import MANIFEST, Place
from tests.graph_toys import CONFIG as GRAPH
from tests.vetting.test_grey_sets import stored

TINY = safetensors.torch.save({"weight": torch.zeros(3)})


def config(
    architecture: str = "cifar_resnet", side: int = 32, classes: int = 10, **args: Any
) -> Any:
    return {
        "architecture": architecture,
        "num_classes": classes,
        "model_args": args,
        "pretrained_cfg": {"input_size": [3, side, side], "mean": [0.5], "std": [0.5]},
    }


CASES = [
    (config(side=4096), "GUARD_MAX_IMAGE_OPERATIONS"),
    (config("resnet18", side=4096), "GUARD_MAX_IMAGE_OPERATIONS"),
    (config("test_resnet", side=4096), "GUARD_MAX_NETWORK_BYTES"),
    (config(classes=100_000), "GUARD_MAX_CLASSES"),
    (config(classes=20_000, depths=[1] * 6, width=4000), "GUARD_MAX_PARAMETERS"),
    (config(depths=[16_000] * 60, width=1), "GUARD_MAX_NETWORK_TENSORS"),
    (config("vit_giant_patch14_224", side=224), "GUARD_MAX_NETWORK_BYTES"),
    (
        {
            **GRAPH,
            "model_args": {"denoiser_width": 2048, "denoiser_depth": 16, "times": 1000},
            "sampler": {**GRAPH["sampler"], "steps": 1000},
        },
        "GUARD_MAX_MOLECULE_OPERATIONS",
    ),
]
IDS = [
    "4096x4096",
    "resnet18 at 4096x4096",
    "memory at 4096x4096",
    "100000 classes",
    "a giant architecture",
    "very many layers",
    "a giant transformer",
    "text to graph",
]


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    architectures.preload()


@pytest.mark.parametrize(("described", "setting"), CASES, ids=IDS)
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_tiny_file_that_declares_too_much_is_refused_at_once(
    described: Any, setting: str, name: str, tmp_path: Path
) -> None:
    if name.endswith(".pt"):  # the jail is not even started
        torch.save({"weight": torch.zeros(3)}, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(TINY)
    before, spent, text = _peak(), list[float](), json.dumps(described).encode()

    for _ in range(3):  # the first may pay for what is imported, or for a busy machine
        started = time.thread_time()
        with pytest.raises(ManifestRejected, match="Over budget: ") as caught:
            examine.inspect_upload(tmp_path / name, name, text, tmp_path, budget=Budget())
        spent.append(time.thread_time() - started)
        assert caught.value.code == "over_budget"
        assert setting in caught.value.sentence
        if spent[-1] < 1:
            break

    assert min(spent) < 1
    assert _peak() - before < 256 << 20


def test_a_huge_head_is_over_the_parameters_where_its_classes_are_granted(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(TINY)
    described = json.dumps(config("tf_efficientnet_lite0", classes=100_000)).encode()

    with pytest.raises(ManifestRejected, match="more than 100,000,000 parameters"):
        examine.inspect_upload(
            tmp_path / "model.safetensors",
            "model.safetensors",
            described,
            tmp_path,
            budget=Budget(classes=100_000, parameters=10**8),
        )


def _peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def test_a_canonical_file_is_judged_by_the_manifest_inside(tmp_path: Path) -> None:
    tensors = architectures.export(architectures.build(MANIFEST))
    path = tmp_path / "model.safetensors"
    write_canonical(tensors, MANIFEST, path)
    (out := tmp_path / "out").mkdir()

    with pytest.raises(ManifestRejected, match="Over budget: "):
        examine.inspect_upload(path, path.name, None, out, budget=Budget(image_operations=10))
    assert examine.inspect_upload(path, path.name, None, out, budget=Budget()).parameters


@pytest.mark.parametrize("manifest", [b"{", b"{}", json.dumps(config("nothing")).encode()])
def test_another_fault_of_the_manifest_comes_after_those_of_the_file(
    manifest: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(TINY[:-2])

    with pytest.raises(Exception, match=r"header|end|bytes") as caught:
        examine.inspect_upload(path, path.name, manifest, tmp_path, budget=Budget())

    assert not isinstance(caught.value, ManifestRejected)


def test_the_service_answers_unvettable_and_its_setting_counts(tmp_path: Path) -> None:
    low = {"GUARD_MAX_IMAGE_OPERATIONS": "1000"}
    for place, answer in ((Place(tmp_path / "a", low), True), (Place(tmp_path / "b"), False)):
        scan_id = place.upload()
        run_stage.work(place.guard, "inspect", scan_id)
        if answer:
            run_stage.work(place.guard, "decide", scan_id)
            assert [row.verdict for row in place.verdicts(scan_id)] == [Verdict.UNVETTABLE]
            (reason,) = report_for(place.guard, scan_id).reasons
            assert "times the limit of 1,000" in reason
        assert (place.messages() == ["detect"]) is not answer


def test_a_scan_at_the_desk_answers_unvettable_and_its_setting_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.saved(tmp_path / "model", steps=0)
    clean = models.clean_set(tmp_path / "clean.npz")
    monkeypatch.setenv("GUARD_MAX_CLASSES", "3")

    report = offline.scan(model, cleanset=clean, policy=models.QUICK)

    assert report.verdict is Verdict.UNVETTABLE
    (reason,) = report.reasons
    assert "6 classes, which is 2 times the limit of 3" in reason
    assert "GUARD_MAX_CLASSES" in reason
    monkeypatch.delenv("GUARD_MAX_CLASSES")
    assert offline.load_model(model).manifest.num_classes == models.CLASSES


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"input_size": (1, 6, 6)}, "cleanset_wrong_size"),
        ({"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3}, "cleanset_wrong_size"),
        ({"num_classes": 7}, "cleanset_wrong_classes"),
    ],
)
def test_a_clean_set_of_larger_images_is_refused_by_its_facts_alone(
    changes: dict[str, Any], code: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 1, 8, 8), dtype=np.uint8)
    whole = modalities.of(MANIFEST.modality).read_clean(
        stored(tmp_path / "set.npz", images, np.arange(400) % 5), "set"
    )
    facts = replace(MANIFEST, **changes)

    modalities.of(MANIFEST.modality).match(MANIFEST, whole.facts)
    with pytest.raises(CleanSetError) as caught:
        modalities.of(MANIFEST.modality).match(facts, whole.facts)

    assert caught.value.code == code


def test_the_service_reads_no_clean_set_of_larger_images(tmp_path: Path) -> None:
    place = Place(tmp_path, {"GUARD_DEFAULT_CLEANSET": "large"})
    place.guard.blobs.path(place.add_cleanset("large", size=16)).unlink()
    scan_id = place.upload()

    for stage in ("inspect", "detect", "decide"):
        run_stage.work(place.guard, stage, scan_id)

    assert [row.verdict for row in place.verdicts(scan_id)] == [Verdict.INCONCLUSIVE]
    assert "clean set 'large' holds 1x16x16" in " ".join(report_for(place.guard, scan_id).reasons)
