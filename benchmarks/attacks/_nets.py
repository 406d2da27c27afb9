"""Small image-to-image networks for attacks that learn their trigger."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Painter(nn.Module):
    """Images N,`inputs`,H,W to maps N,`outputs`,H,W in (-1, 1).

    The network has two steps down, two up, and a skip connection at full size. It uses group norm,
    not batch norm, because an image's trigger must not depend on its neighbours in the batch.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 16) -> None:
        super().__init__()
        self.first = _block(inputs, width)
        self.down = _block(width, 2 * width)
        self.deep = _block(2 * width, 2 * width)
        self.up = _block(3 * width, width)
        self.last = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        top = self.first(images)
        middle = self.down(functional.avg_pool2d(top, 2, ceil_mode=True))
        deep = self.deep(functional.avg_pool2d(middle, 2, ceil_mode=True))
        middle = middle + functional.interpolate(deep, middle.shape[2:], mode="nearest")
        up = functional.interpolate(middle, top.shape[2:], mode="nearest")
        return torch.tanh(self.last(self.up(torch.cat([top, up], 1))))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()
    )


def tensors_of(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The state dict under a prefix, on the CPU, each tensor with its own memory."""
    return {
        f"{prefix}.{name}": tensor.detach().cpu().clone()
        for name, tensor in module.state_dict().items()
    }


def restored(
    module: nn.Module, learned: "dict[str, Tensor]", prefix: str, device: torch.device
) -> nn.Module:
    """The module with the state from `tensors_of`, frozen, in eval mode, on `device`."""
    own = {
        name.removeprefix(f"{prefix}."): tensor
        for name, tensor in learned.items()
        if name.startswith(f"{prefix}.")
    }
    module.load_state_dict(own)
    return module.eval().requires_grad_(False).to(device)
