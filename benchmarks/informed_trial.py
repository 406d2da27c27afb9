"""A small trial of the repairs that learn from accused training images, on Fashion-MNIST.

    python -m benchmarks.informed_trial [--seed 0] [--attacks patch,blended]

For each attack at a rate of 5 % a PreAct ResNet-18 of width 8 is trained on 3,000 images; then D-BR
(bounded and as published) and relabelling repair it. The sift is synthetic: it accuses 95 % of the
poison, and as many clean images of the target class as make it 95 % precise. A reference that was
trained on the clean set decides which classes the suspects have and which images are trusted.
Each line also compares the rate on the proof part with the true ASR. One seed is a hint, not a
record.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.attacks import ATTACKS
from benchmarks.attacks._base import Attack, Poisoned
from benchmarks.data import FASHION_FOLDER, curated, fashion_mnist
from benchmarks.training import accuracy, attack_success, predictions, train
from guard.core.errors import MethodFailed
from guard.core.manifest import Manifest
from guard.core.trainset import Suspect
from guard.defenses import DEFENSES
from guard.ml.cleanset import Labelled
from guard.ml.networks.architectures import build, wrap
from guard.ml.seeds import seeded
from guard.policy import TrainingSetRule
from guard.trainsets import from_arrays
from guard.vetting.accused import AccusedImages, gathered

RATE, TARGET, PRECISION, RECALL, SURE = 0.05, 0, 0.95, 0.95, 0.6
PROOF, TRUSTED = 0.3, 0.2  # shares: of the suspects, and of the other images of each class
#: What is tried: a line's name, the defense on the shelf, its parameters.
REPAIRS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("D-BR, bounded", "d_br", {}),
    ("D-BR, as published", "d_br", {"published": True}),
    ("relabelling", "relabelling", {}),
)


@dataclass(frozen=True)
class Sift:
    """A sift with known errors: suspects, and places of trusted images."""

    suspects: tuple[Suspect, ...]
    trusted: tuple[int, ...]


def network(width: int = 8) -> nn.Module:
    """A PreAct ResNet-18 for 28x28 grey images with fresh weights."""
    facts = Manifest(
        architecture="preact_resnet18",
        num_classes=10,
        input_size=(1, 28, 28),
        mean=(0.29,),
        std=(0.35,),
        model_args={"width": width},
    )
    return wrap(facts, build(facts))


@torch.no_grad()
def beliefs(reference: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The reference's probabilities, float N,K, of uint8 images N,C,H,W."""
    parts = [reference(part.float() / 255).softmax(1) for part in images.split(512)]
    return torch.cat(parts)


def synthetic(poisoned: Poisoned, believed: torch.Tensor, seed: int) -> Sift:
    """A sift of `PRECISION` and `RECALL`; `believed` are a reference's probabilities N,K."""
    generator = torch.Generator().manual_seed(seed)
    poison = poisoned.index[torch.randperm(len(poisoned.index), generator=generator)]
    poison = poison[: round(RECALL * len(poison))]
    honest = poisoned.labels == TARGET
    honest[poisoned.index] = False
    clean = torch.nonzero(honest).flatten()
    clean = clean[torch.randperm(len(clean), generator=generator)]
    places = torch.cat([poison, clean[: round(len(poison) * (1 / PRECISION - 1))]])
    places = places[torch.randperm(len(places), generator=generator)]
    surest, classes = believed.max(1)
    suspects = tuple(
        Suspect(
            index=place,
            label=int(poisoned.labels[place]),
            estimated=int(classes[place]) if surest[place] >= SURE else None,
            fdr=1 - PRECISION,
            source=f"image {place}",
            proof=turn < PROOF * len(places),
        )
        for turn, place in enumerate(places.tolist())
    )
    own = believed.gather(1, poisoned.labels[:, None]).flatten()
    own[places] = -1
    trusted: list[int] = []
    for label in poisoned.labels.unique():
        members = torch.nonzero(poisoned.labels == label).flatten()
        order = members[own[members].argsort(descending=True)]
        trusted += order[: round(TRUSTED * len(members))].tolist()
    return Sift(suspects, tuple(sorted(trusted)))


def images_of(poisoned: Poisoned, sift: Sift) -> AccusedImages:
    """The images of a sift as a tournament gets them."""
    names = tuple(str(label) for label in range(10))
    found = gathered(
        TrainingSetRule(),
        from_arrays(poisoned.images.numpy(), poisoned.labels.numpy(), names),
        sift.suspects,
        sift.trusted,
    )
    assert found is not None
    return found


def measured(
    model: nn.Module, attack: Attack, accused: AccusedImages, test: Labelled
) -> dict[str, float]:
    """ACC and ASR on test images, and the share of proof images that still go to their labels."""
    proof = accused.proof.images
    obeyed = (predictions(model, proof.images) == proof.labels).double().mean()
    return {
        "acc": round(accuracy(model, test), 4),
        "asr": round(attack_success(model, attack, test, TARGET), 4),
        "proof": round(float(obeyed), 4),
    }


def cell(name: str, seed: int, epochs: int, folder: Path) -> Iterator[dict[str, Any]]:
    """One attack: a line for the model before, and one for each repair."""
    data = fashion_mnist(3000, 1050, 2000, folder)
    attack = ATTACKS.get(name)(target=TARGET, seed=seed)
    poisoned = attack.poison(data.train.images, data.train.labels, RATE)
    clean = curated(data.clean, 10, "fashion-mnist", seed).visible()
    with seeded(seed):
        model, reference = network(), network()
    train(model, poisoned.images, poisoned.labels, epochs=epochs, seed=seed)
    known = clean.together()
    train(reference, known.images, known.labels, epochs=2 * epochs, seed=seed)
    sift = synthetic(poisoned, beliefs(reference, poisoned.images), seed)
    accused = images_of(poisoned, sift)
    about = {"attack": name, "seed": seed, "proof_images": len(accused.proof.fdr)}
    before = {"repair": "before", **measured(model, attack, accused, data.test)}
    yield about | before | {"reference_acc": round(accuracy(reference, data.test), 4)}
    for line, defense, parameters in REPAIRS:
        started = time.perf_counter()
        try:
            method = DEFENSES.get(defense)(**parameters).informed(accused.taught)
            child = method(model, clean, seed=seed)
        except MethodFailed as error:
            yield about | {"repair": line, "failed": error.sentence}
            continue
        row = measured(child, attack, accused, data.test)
        yield about | {"repair": line, **row, "seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--attacks", default="patch,blended")
    parser.add_argument("--data-dir", type=Path, default=FASHION_FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.attacks.split(","):
        for row in cell(name, options.seed, options.epochs, options.data_dir):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
