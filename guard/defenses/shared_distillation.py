"""Shared distillation of all weights of a model (`guard.defenses._distilled`).

This is our own method, for clean sets of a few dozen images or more.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from guard.defenses._distilled import Distilled
from guard.ml.cleanset import CleanSet


@dataclass(frozen=True, kw_only=True)
class SharedDistillation(Distilled):
    """Distilled repair of the model's own weights; parameters as in `Distilled`."""

    version: ClassVar[int] = 7
    paper: ClassVar[str] = (
        "own, after Wei et al., NeurIPS 2023; Wang et al., S&P 2019; Li et al., ICLR 2021"
    )

    def student(self, model: nn.Module, clean: CleanSet) -> tuple[nn.Module, list[nn.Parameter]]:
        del clean
        return model, list(model.parameters())
