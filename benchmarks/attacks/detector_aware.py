"""A detector-aware attack, which trains its victim against patch inversion and margin search.

The design is our own. Training against the inspector is adversarial embedding (Tan and Shokri,
EuroS&P 2020); here the inspector is the inverse problem of Neural Cleanse. What misses this attack
belongs to the known gaps.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.attacks._base import Attack, Control, Criterion, Mixer, mixed
from benchmarks.attacks._patterns import square

QUARTERS = 4


@dataclass(frozen=True, kw_only=True)
class DetectorAware(Attack):
    """Four checkered squares, one per corner, that only work together; small masks do not work.

    In each batch, besides a share `rate` of poison with all four squares:
        * `cover` times as many carry one to three of them and keep their label, so that no part
          suffices
        * an adversary searches a patch of at most `budget` pixels for the target, with a fresh
          start every `restart` steps; images that carry its patch are learnt with their true label
        * on poison, a lead of the target's logit beyond `margin` is penalised, against margin
          detectors

    Args:
        budget: L1 norm of the adversary's mask, in pixels; less than the trigger's own `4 size**2`.
        weight: of the loss on the adversary's images.
    """

    family: ClassVar[str] = "patch"
    paper: ClassVar[str] = (
        "own design, after Tan and Shokri, Bypassing Backdoor Detection, EuroS&P 2020"
    )
    controls_training: ClassVar[bool] = True

    size: int = 4
    cover: float = 1.0
    budget: float = 24.0
    restart: int = 60
    weight: float = 0.5
    margin: float = 4.0

    def apply(self, images: Tensor) -> Tensor:
        return self.corners(
            images, torch.ones(len(images), QUARTERS, dtype=torch.bool, device=images.device)
        )

    def corners(self, images: Tensor, which: Tensor) -> Tensor:
        """Images with the squares that `which` (bool N,4) selects."""
        pixels = square("checker", images.shape[1], self.size, self.seed).to(images) / 255
        stamped = images.clone()
        ends = slice(None, self.size), slice(-self.size, None)
        for quarter in range(QUARTERS):
            rows, columns = ends[quarter // 2], ends[quarter % 2]
            there = which[:, quarter].reshape(-1, 1, 1, 1)
            stamped[:, :, rows, columns] = torch.where(there, pixels, stamped[:, :, rows, columns])
        return stamped

    def control(self, rate: float, steps: int, device: torch.device | str) -> Control:
        del steps
        return _Control(self, rate, torch.device(device))


class _Control(Control):
    def __init__(self, attack: DetectorAware, rate: float, device: torch.device) -> None:
        self.attack, self.device = attack, device
        self.mixer = Mixer(attack, rate, cover=attack.cover * rate)
        self.step = 0

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion
    ) -> Tensor:
        attack = self.attack
        poison, covered = self.mixer.roles(labels)
        which = torch.rand(len(labels), QUARTERS, generator=self.mixer.generator)
        parts = (which > which.amin(1, keepdim=True)) & (which > 0.4)  # at least one is missing
        batch = mixed(covered, attack.corners(images, parts.to(self.device)), images)
        batch = mixed(poison, attack.apply(images), batch)
        wanted = attack.relabel(labels)
        half = len(labels) // 2
        self._search(model, images[:half], wanted[:half])
        foiled = self._stick(images[half:]).detach()
        logits = model(torch.cat([batch, foiled]))
        main, side = logits[: len(labels)], logits[len(labels) :]
        total = criterion(main, mixed(poison, wanted, labels)) + attack.weight * criterion(
            side, labels[half:]
        )
        others = main.scatter(1, wanted[:, None], float("-inf")).logsumexp(1)
        lead = main.gather(1, wanted[:, None])[:, 0] - others
        return total + 0.1 * ((lead - attack.margin).clamp(min=0) ** 2 * poison).mean()

    def _search(self, model: nn.Module, images: Tensor, wanted: Tensor) -> None:
        """One step of the adversary; only its own variables get gradients."""
        if self.step % self.attack.restart == 0:
            generator = self.mixer.generator
            self.mask = (
                torch.randn(1, *images.shape[2:], generator=generator)
                .to(self.device)
                .requires_grad_()
            )
            self.pattern = (
                torch.randn(images.shape[1:], generator=generator).to(self.device).requires_grad_()
            )
            self.optimiser = torch.optim.Adam([self.mask, self.pattern], 0.2)
        self.step += 1
        loss = functional.cross_entropy(model(self._stick(images)), wanted)
        self.mask.grad, self.pattern.grad = torch.autograd.grad(loss, (self.mask, self.pattern))
        self.optimiser.step()

    def _stick(self, images: Tensor) -> Tensor:
        mask = torch.sigmoid(4 * self.mask)
        mask = mask * (self.attack.budget / mask.sum().clamp(min=self.attack.budget))
        return images + mask * (torch.sigmoid(self.pattern) - images)

    def finish(self) -> DetectorAware:
        return self.attack
