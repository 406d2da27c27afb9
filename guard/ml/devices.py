"""The device that methods compute on."""

import torch


def best_device() -> torch.device:
    """The first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def named(device: str | None = None) -> torch.device:
    """The device as its tensors name it ("cuda:0" for "cuda"); `best_device` by default."""
    return torch.empty(0, device=device or best_device()).device


def bound(device: str | None, most: int) -> None:
    """Let this process allocate no more than `most` bytes on a GPU; more raises OutOfMemoryError.

    What CUDA itself takes for a process, some hundreds of MB, is not counted.

    Args:
        device: the one that it computes on; `best_device` by default. Nothing else is bounded.
        most: in bytes; 0 for all that there is.
    """
    where = torch.device(device) if device else best_device()
    if most <= 0 or where.type != "cuda":
        return
    whole = torch.cuda.get_device_properties(where).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, most / whole), where)
