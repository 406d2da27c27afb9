"""The device that methods compute on."""

import torch


def best_device() -> torch.device:
    """The first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def named(device: str | None = None) -> torch.device:
    """The device as its tensors name it ("cuda:0" for "cuda"); `best_device` by default."""
    return torch.empty(0, device=device or best_device()).device
