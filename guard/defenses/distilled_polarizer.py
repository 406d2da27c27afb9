"""A neural polarizer trained by shared distillation: only one small layer and the head change.

The layer is that of Zhu et al., Neural Polarizer, NeurIPS 2023, which trains it on perturbed
images and labels; here it is trained as in `guard.defenses._distilled`. With the other weights
frozen, a few images can do less harm, but less can be unlearnt. The paper does not train the head:
without that, the row of a target class stays as unusual as it was, which detectors find.
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
    """Distilled repair by a polarizer; parameters as in `Distilled`, with larger rates.

    Its shared adversarial examples have changed pixels: a single layer learns nothing against a
    warp from warped examples.
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
