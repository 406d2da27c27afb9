"""The cells of the sift's exam: which poison at which rate, on which data, in which network.

At the rate that most aims are about (5 %) every attack meets three seeds, all three sources and all
three networks; other rates have fewer cells. All cells of one split have the same clean images.
The published statistics are run on all poisoned cells, and smaller clean sets are tried on the
cells of one seed, when all sifts are done.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.fitting import Training
from benchmarks.sift.cell import Cell
from benchmarks.sift.sets import HONEST

#: Seeds and sources of the data; a clean set costs three reference networks, so there are few.
SPLITS = ((11, "fashion"), (12, "mnist"), (13, "mnist-colour"))
WITH_SMALLER = 12  # the seed whose cells are sifted with smaller clean sets, too
CLEAN, SMALLER = 1000, (300,)  # images of all classes; methods see seven tenths
TRAIN, TRAIN_RARE, TEST = 3000, 5000, 1000
RARE, USUAL, OFTEN, ALL = 0.01, 0.05, 0.1, 0.2  # an all-to-all map is not learnt from less
ORDER = 5

#: A short name, and what builds and trains the network.
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "resnet": {
        "architecture": "cifar_resnet",
        "model_args": {"depths": [1, 1, 1], "width": 8},
        "training": Training(epochs=10),
    },
    "preact": {
        "architecture": "preact_resnet18",
        "model_args": {"width": 6},
        "training": Training(epochs=8),
    },
    "timm-resnet": {
        "architecture": "resnet10t",
        "model_args": {
            "channels": [12, 24, 48, 96],
            "stem_width": 12,
            "replace_stem_pool": False,
            "base_width": 64,
        },
        "training": Training(epochs=8),
    },
}
#: Strengths at which networks of this size learn a few dozen images; chosen on other seeds by the
#: true ASR alone, before any sift of the exam.
STRENGTHS: Mapping[str, Mapping[str, Any]] = {
    "patch": {"size": 2},
    "blended": {"alpha": 0.2},
    "sig": {"delta": 40.0, "delta_test": 80.0},
    "wanet": {"strength": 2.0},
    "label_consistent": {"bound": 16.0, "size": 3},
    "adaptive_blend": {"alpha": 0.15, "alpha_test": 0.2},
    "all_to_all": {"size": 3},
}
#: How many cells each rate has.
POISONED: Mapping[str, Mapping[float, int]] = {
    "patch": {RARE: 2, USUAL: 3, OFTEN: 1},
    "blended": {RARE: 2, USUAL: 3, OFTEN: 1},
    "sig": {RARE: 1, USUAL: 3, OFTEN: 1},
    "wanet": {RARE: 1, USUAL: 3, OFTEN: 1},
    "label_consistent": {USUAL: 3, OFTEN: 1},
    "adaptive_blend": {RARE: 1, USUAL: 3, OFTEN: 1},
    "all_to_all": {ALL: 3},
}
HONEST_EACH = 5  # sets of every kind


@dataclass(frozen=True, kw_only=True)
class Exam:
    """A cell, the short name of its network, and the clean-set sizes that it is sifted with.

    `compare`: the published statistics are run on it.
    """

    cell: Cell
    network: str
    sizes: tuple[int, ...]
    compare: bool = False

    @property
    def name(self) -> str:
        """The name of its folder."""
        cell = self.cell
        kind = f"honest-{cell.honest}" if cell.attack is None else f"{cell.attack}-{cell.rate:.0%}"
        return f"{kind.replace('%', 'pc')}-{cell.data}-{self.network}-{cell.seed}"


def plan() -> list[Exam]:
    """All cells, in a random order that never changes."""
    made = [
        _poisoned(place, attack, rate, nth)
        for place, (attack, rates) in enumerate(POISONED.items())
        for rate, seeds in rates.items()
        for nth in range(seeds)
    ]
    made += [
        _honest(place, kind, nth) for place, kind in enumerate(HONEST) for nth in range(HONEST_EACH)
    ]
    random.Random(ORDER).shuffle(made)
    return made


def _poisoned(place: int, attack: str, rate: float, nth: int) -> Exam:
    seed, source = SPLITS[(nth + (place + 1) * (rate == OFTEN)) % len(SPLITS)]
    rare = rate == RARE  # 3,000 images would hold 30 poisoned ones, and the aims begin at 50
    return _exam(
        seed,
        "fashion" if rare else source,  # MNIST has too few images
        list(NETWORKS)[(place + nth + (rate == OFTEN)) % len(NETWORKS)],
        compare=True,
        attack=attack,
        rate=rate,
        parameters=STRENGTHS[attack],
        target=None if attack == "all_to_all" else (place + nth) % 10,
        train=TRAIN_RARE if rare else TRAIN,
    )


def _honest(place: int, kind: str, nth: int) -> Exam:
    seed, source = SPLITS[nth % len(SPLITS)]
    network = list(NETWORKS)[(2 * place + nth + nth // len(SPLITS)) % len(NETWORKS)]
    return _exam(seed, source, network, attack=None, honest=kind)


def _exam(seed: int, source: str, network: str, *, compare: bool = False, **facts: Any) -> Exam:
    sizes = {"train": TRAIN, "clean": CLEAN, "test": TEST}
    cell = Cell(**{"data": source, "seed": seed, **sizes, **NETWORKS[network], **facts})
    smaller = SMALLER if seed == WITH_SMALLER else ()
    return Exam(cell=cell, network=network, sizes=(CLEAN, *smaller), compare=compare)


def sifts(plans: Sequence[Exam]) -> int:
    """How many sifts these cells have, over all sizes of the clean set."""
    return sum(len(one.sizes) for one in plans)
