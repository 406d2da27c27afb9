"""Where to compute."""

import torch


def best_device() -> torch.device:
    """The first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def named(device: str | None = None) -> torch.device:
    """A device as the tensors on it name it ("cuda:0" for "cuda"); default: `best_device`."""
    return torch.empty(0, device=device or best_device()).device
