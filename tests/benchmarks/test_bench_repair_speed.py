"""Straightforward ways are the same methods; every defense of the shelf is measured.

Aims are told.
"""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import bench_repair_speed as bench
from benchmarks.repair_ways import by_turns, descending, npd_ways, sau_ways, straightforward, twice
from benchmarks.speed_tables import repairs
from benchmarks.zoo import ZooModel
from guard.core.modality import Modality
from guard.defenses import DEFENSES
from guard.defenses.sau import Sau
from guard.defenses.tsbd import Tsbd, each
from guard.ml.cleanset import Labelled
from guard.ml.training.sharpness import uphill
from tests import toys


@pytest.mark.parametrize("rho", [0.05, 0.3])
def test_both_ways_have_the_same_loss(rho: float) -> None:
    model, data = toys.planted(), toys.labelled(60, 4)
    reference = copy.deepcopy(model)
    sau = Sau(rho=rho)

    terms = sau.terms(
        model, reference, data.floats(), data.labels, reference(data.floats()).argmax(1)
    )
    ours = torch.stack(list(terms)).sum()
    plain = straightforward(sau, model, reference, data.floats(), data.labels)

    assert float(ours.detach()) == pytest.approx(float(plain.detach()), rel=1e-4)


def test_a_defense_that_gave_up_has_no_memory() -> None:
    words = repairs(
        {
            "images": 8,
            "batch": 4,
            "sau_ratio": 0.4,
            "peak_over_fine_tuning": {"sau": 1.5, "tsbd": None},
        }
    )

    assert "takes 0.40 of the processor time" in words
    assert "| sau | 1.50 |\n| tsbd | – |" in words


def test_without_memory_the_page_tells_times_alone_and_what_trained_networks_gave() -> None:
    words = repairs(
        {
            "images": 8,
            "batch": 4,
            "sau_ratio": 0.4,
            "peak_over_fine_tuning": {},
            "device": "cuda",
            "named": "NVIDIA H200",
            "zoo": "z",
            "trained": {"a": {"ours": 1.0, "plain": 4.0}, "b": {"ours": 2.0, "plain": 4.0}},
        }
    )

    assert "takes 0.40 of the time on one NVIDIA H200" in words
    assert (
        "On 2 backdoored models of zoo z, drawn at random, with clean images: 0.25 to 0.50" in words
    )
    assert "memory" not in words


def test_saus_two_ways_are_timed_on_a_zoos_models_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ZooModel(tmp_path / "a", {"data": "toy"})
    monkeypatch.setattr(bench, "_loaded", lambda folder, device: toys.network())
    (tmp_path / "cleansets").mkdir()
    shown = toys.labelled(400, 4)
    np.savez(
        model.cleanset, images=shown.images.permute(0, 2, 3, 1).numpy(), labels=shown.labels.numpy()
    )

    seconds = bench.on_trained([model], 32, 1, "cpu")

    assert list(seconds) == ["a"]
    assert min(seconds["a"].values()) > 0


def test_a_step_of_the_authors_tsbd_moves_the_weights_as_ours() -> None:
    tsbd, data = Tsbd(), toys.labelled(60, 4)
    mine, theirs = toys.network().train(), toys.network().train()
    own, other = (torch.optim.SGD(model.parameters(), lr=0.01) for model in (mine, theirs))
    ascent = partial(each, radius=tsbd.radius)

    descending(lambda images, labels: uphill(mine, images, labels, ascent, share=tsbd.alpha), own)(
        data.floats(), data.labels
    )
    twice(tsbd, theirs, other, data.floats(), data.labels)

    before = toys.network()
    assert any(
        not torch.equal(*pair) for pair in zip(mine.parameters(), before.parameters(), strict=True)
    )
    assert all(
        torch.allclose(*pair, atol=1e-5)
        for pair in zip(mine.parameters(), theirs.parameters(), strict=True)
    )


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> toys.CleanSet:
    """The benchmark's own network and pictures are too large for a test."""
    monkeypatch.setattr(bench, "network", toys.network)
    monkeypatch.setattr(bench, "CLASSES", toys.CLASSES)
    monkeypatch.setattr(bench, "noise_images", lambda count: toys.clean_set(search=count))
    return toys.clean_set(search=128)


def test_saus_two_ways_are_timed(toy: toys.CleanSet) -> None:
    ways = sau_ways(toy.search, toys.network)
    numbered = Labelled(toy.search.images, torch.arange(len(toy.search)))

    spent = by_turns(ways, numbered, 1)

    assert set(spent) == {"ours", "plain"}
    assert all(seconds > 0 for seconds in spent.values())


@pytest.mark.parametrize("conditional", [False, True])
def test_the_polarizers_ways_run_with_and_without_reuse(
    toy: toys.CleanSet, conditional: bool
) -> None:
    ways = npd_ways(toy, toys.network, conditional=conditional)

    assert set(by_turns(ways, toy.search, 1)) == {"ours", "plain"}


def test_turns_take_every_batch_and_one_to_warm_up() -> None:
    seen: dict[str, list[int]] = {"one": [], "two": []}
    steps = {
        name: lambda images, _, counts=counts: counts.append(len(images))
        for name, counts in seen.items()
    }

    spent = by_turns(steps, toys.labelled(100, 1), 2)

    assert seen == {"one": [64, 64, 36, 64, 36], "two": [64, 64, 36, 64, 36]}
    assert set(spent) == {"one", "two"}


@pytest.mark.parametrize("name", DEFENSES.of(Modality.IMAGES))
def test_every_defense_of_the_shelf_is_measured_at_few_steps(name: str) -> None:
    assert isinstance(bench.few_steps(name), DEFENSES.get(name))


@pytest.mark.parametrize("name", [bench.PLAIN, "neural_polarizer", "sau"])
def test_memory_is_measured(toy: toys.CleanSet, name: str) -> None:
    threads = torch.get_num_threads()
    try:
        grown = bench.memory(name, 128)
    finally:
        torch.set_num_threads(threads)

    assert grown is not None
    assert 0 <= grown < 1000


def test_plain_fine_tuning_trains_in_place() -> None:
    model, before = toys.network(), toys.network()

    bench.fine_tuned(model, toys.labelled(60, 4))

    assert not torch.equal(next(model.parameters()), next(before.parameters()))


def test_an_aim_is_reached_up_to_its_limit_and_never_unmeasured() -> None:
    rows = bench.aims(
        {"noise": 0.5, "trained": 0.6}, {"i_bau": 2.9, "sau": 2.9, "tsbd": 2.2, "clp": None}
    )

    assert [(row["limit"], row["reached"]) for row in rows] == [
        (0.5, True),
        (0.5, False),
        (3.0, True),
        (2.2, False),
        (2.2, True),
        (2.2, False),
    ]


def test_the_page_says_of_each_aim_whether_it_is_reached() -> None:
    over = {"sau": 2.5, "clp": None}
    page = bench.page(
        {
            "images": 8,
            "batch": 4,
            "sau_ratio": 0.4,
            "peak_over_fine_tuning": over,
            "aims": bench.aims({"noise": 0.4}, over),
            "ratios": {"neural_polarizer": 0.9, "conditional_polarizer": 0.5, "tsbd": 0.8},
        }
    )

    assert "| SAU's pass over a straightforward one, noise | 0.40 | 0.5 | yes |" in page
    assert "| memory of sau over plain fine-tuning | 2.50 | 2.2 | no |" in page
    assert "| memory of clp over plain fine-tuning | – | 2.2 | no |" in page
    assert "Neural Polarizer 0.90, conditional 0.50" in page
