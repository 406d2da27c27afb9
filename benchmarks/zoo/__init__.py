"""Read zoos of honest and backdoored models; `python -m benchmarks.zoo build SPEC` makes them."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.attacks._base import Attack


@dataclass(frozen=True)
class ZooModel:
    """One finished model: its folder, and the truth that only evaluators read.

    The folder holds model.safetensors and config.json.
    """

    folder: Path
    truth: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The model's name, also that of its folder."""
        return self.folder.name

    @property
    def cleanset(self) -> Path:
        """The path of its clean set."""
        return self.folder.parent / "cleansets" / f"{self.truth['data']}.npz"

    def attack(self) -> "Attack | None":
        """The attack with its original trigger; None for honest models."""
        import safetensors.torch

        from benchmarks.attacks import ATTACKS

        recipe = self.truth["recipe"]
        if recipe is None:
            return None
        file = self.folder / "trigger.safetensors"
        learned = safetensors.torch.load_file(file) if file.exists() else {}
        return ATTACKS.get(recipe["attack"])(**recipe["parameters"], learned=learned)


def place_in_random_order(name: str) -> float:
    """A number, 0..1, that depends on the model's name alone: sorted by it, a part is a sample."""
    return random.Random(name).random()


def load(folder: Path) -> list[ZooModel]:
    """The finished models below `folder`, ordered by name."""
    found = sorted(folder.glob("*/truth.json"))
    return [
        ZooModel(file.parent, json.loads(file.read_text()))
        for file in found
        if file.parent.suffix != ".part"
    ]
