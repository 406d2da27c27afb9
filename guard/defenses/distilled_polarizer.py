"""A neural polarizer that learns what shared distillation learns.

One small layer and the head are trained.

The layer is that of Zhu et al., Neural Polarizer, NeurIPS 2023, which trains it on perturbed
pictures and labels; what it is taught here is in `guard.defenses._distilled`. With the other
weights frozen there is less that a few pictures can spoil, and less that can be unlearnt. A head of
its own is not in the paper: without one, the row of a target class stays as unusual as it was,
which detectors see.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from guard.defenses._distilled import Distilled
from guard.defenses._polarizing import inserted, place_for
from guard.ml.cleanset import CleanSet
from guard.ml.networks.polarizer import polarizer_of


@dataclass(frozen=True, kw_only=True)
class DistilledPolarizer(Distilled):
    """Distilled repair by a polarizer.

    Parameters as in `Distilled`, with larger rates for so few weights.

    Its shared adversarial examples have changed pixels: bent ones teach one layer nothing against a
    warp.
    """

    version: ClassVar[int] = 6
    paper: ClassVar[str] = (
        "own, after Zhu et al., NeurIPS 2023; Wei et al., NeurIPS 2023; Wang et al., S&P 2019"
    )

    bent: bool = False
    rate: float = 5e-3
    settle_rate: float = 2.5e-3

    def student(self, model: nn.Module, clean: CleanSet) -> tuple[nn.Module, list[nn.Parameter]]:
        place = place_for(model, clean)
        polarized = inserted(model.requires_grad_(requires_grad=False), place, clean.classes)
        return polarized, list(polarizer_of(polarized).parameters())
