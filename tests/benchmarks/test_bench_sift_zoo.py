from typing import Any

import pytest
import torch

from benchmarks import bench_sift_zoo
from benchmarks.zoo import make, sets
from benchmarks.zoo.spec import read
from tests.benchmarks.test_zoo import SPECS


def row(verdict: str, sift: str, **other: Any) -> dict[str, Any]:
    own = {"verdict": sift, "controlled": other.pop("controlled", False), "accused": [3]}
    return {
        "verdict": verdict,
        "backdoored": True,
        "attack": "patch",
        "target": 3,
        "before": {"asr": 0.9},
        "sift": own | {"seconds": 2.0},
    } | other


def test_what_the_set_adds_is_counted_by_attack_and_apart_where_the_set_has_no_poison() -> None:
    rows = [
        row("rejected", "poisoned"),
        row("cleared", "review", attack="sig"),
        row("cleared", "nothing", attack="lira", controlled=True),
        row("cleared", "poisoned", before={"asr": 0.4}),  # the backdoor does not work
        row("held", "nothing", backdoored=False, attack=None, target=None, before={"asr": None}),
    ]

    result = bench_sift_zoo.summary(rows)

    assert [result["all"][one]["k"] for one in ("policy", "sift", "poisoned", "either")] == [
        1,
        2,
        1,
        2,
    ]
    assert result["all"]["policy"]["n"] == 2
    assert result["controlled"]["either"]["k"] == 0
    assert (result["honest"]["policy"]["k"], result["honest"]["sift"]["k"]) == (1, 0)
    assert (result["right_class"]["k"], result["right_class"]["n"]) == (1, 1)
    text = bench_sift_zoo.page(result | {"policy": "default", "models": len(rows)})
    assert "| lira (controlled) | 0/1" in text


@pytest.mark.parametrize("attack", ["patch", "lira"])
def test_the_set_of_a_model_is_made_again_with_its_poison(attack: str) -> None:
    spec = read(SPECS / "served.toml")
    # Every machine has these images; Fashion-MNIST is a package of Debian's.
    job = next(one for one in spec.jobs if one.attack == attack and one.data.key == "mnist")
    job_data = sets.load(spec.sets[job.data.key])
    made = make.attack_for(job, job_data, 5, torch.device("cpu"))

    images, labels, index = make.taught(job, job_data, made)

    changed = (images != job_data.train.images).flatten(1).any(1) | (
        labels != job_data.train.labels
    )
    assert sorted(index.tolist()) == changed.nonzero().flatten().tolist()
    assert (len(index) == 0) == (attack == "lira")
