"""Zoos of honest and backdoored models.

Read them here, build them with `python -m benchmarks.zoo build SPEC`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.attacks._base import Attack


@dataclass(frozen=True)
class ZooModel:
    """One finished model.

    Its folder (model.safetensors, config.json) and the truth that only evaluators read.
    """

    folder: Path
    truth: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The model's name, also that of its folder."""
        return self.folder.name

    @property
    def cleanset(self) -> Path:
        """The clean set that goes with it."""
        return self.folder.parent / "cleansets" / f"{self.truth['data']}.npz"

    def attack(self) -> "Attack | None":
        """The attack with its trigger as it was; None for honest models."""
        import safetensors.torch

        from benchmarks.attacks import ATTACKS

        recipe = self.truth["recipe"]
        if recipe is None:
            return None
        file = self.folder / "trigger.safetensors"
        learned = safetensors.torch.load_file(file) if file.exists() else {}
        return ATTACKS.get(recipe["attack"])(**recipe["parameters"], learned=learned)  # type: ignore[return-value]


def load(folder: Path) -> list[ZooModel]:
    """The finished models below `folder`, by name; half-written ones do not count."""
    found = sorted(folder.glob("*/truth.json"))
    return [
        ZooModel(file.parent, json.loads(file.read_text()))
        for file in found
        if file.parent.suffix != ".part"
    ]
