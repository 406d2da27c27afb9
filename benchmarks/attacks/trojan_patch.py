"""TrojanNN (Liu et al., NDSS 2018): a patch optimised to excite one neuron, all-to-one."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from benchmarks.attacks._base import Attack, ModelFactory
from benchmarks.attacks._surrogate import BATCH, surrogate
from guard.ml.cleanset import Labelled
from guard.ml.seeds import seeded


@dataclass(frozen=True, kw_only=True)
class TrojanPatch(Attack):
    """A bottom right square whose pixels excite the best connected unit before the last layer.

    Deviations: the unit is the one with the largest summed outgoing weights (the paper: incoming,
    of an inner layer); its activation is raised over real images; the victim is trained from
    scratch on poisoned data, where the paper retrains the model that it analysed.
    """

    family: ClassVar[str] = "patch"
    paper: ClassVar[str] = "Liu et al., Trojaning Attack on Neural Networks, NDSS 2018"

    size: int = 5
    offset: int = 1
    steps: int = 100
    surrogate_epochs: int = 2

    def prepare(
        self,
        data: Labelled,
        classes: int,
        model_factory: ModelFactory | None = None,
        device: torch.device | str = "cpu",
    ) -> Self:
        model = surrogate(data, model_factory, device, epochs=self.surrogate_epochs, seed=self.seed)
        head = [
            part
            for part in model.modules()
            if isinstance(part, nn.Linear) and part.out_features == classes
        ][-1]
        unit = int(head.weight.abs().sum(0).argmax())
        kept: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
        try:
            pixels = self._excite(model, data, unit, kept)
        finally:
            handle.remove()
        return replace(self, classes=classes, learned={"pixels": pixels})

    def _excite(self, model: nn.Module, data: Labelled, unit: int, kept: list[Tensor]) -> Tensor:
        device = next(model.parameters()).device
        images = data.images.to(device)
        with seeded(self.seed) as generator, torch.enable_grad():
            raw = (
                torch.randn(images.shape[1], self.size, self.size, generator=generator)
                .to(device)
                .requires_grad_()
            )
            optimiser = torch.optim.Adam([raw], 0.1)
            for _ in range(self.steps):
                index = torch.randint(len(images), (BATCH,), generator=generator).to(device)
                kept.clear()
                model(self._stick(images[index].float().div_(255), torch.sigmoid(raw)))
                loss = -kept[0].flatten(1)[:, unit].mean()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
        return torch.sigmoid(raw).detach().cpu()

    def apply(self, images: Tensor) -> Tensor:
        if not self.learned:
            raise RuntimeError("The patch of TrojanNN is optimised; call prepare first.")
        return self._stick(images, self.learned["pixels"].to(images))

    def _stick(self, images: Tensor, pixels: Tensor) -> Tensor:
        stamped = images.clone()
        end = -self.offset if self.offset else None
        start = -self.offset - self.size
        stamped[:, :, start:end, start:end] = pixels
        return stamped
