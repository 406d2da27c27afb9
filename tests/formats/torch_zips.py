"""PyTorch archives for tests: honest ones by torch.save, and rebuilt ones with members changed."""

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import torch


def saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def state() -> dict[str, torch.Tensor]:
    return {
        "conv.weight": torch.arange(8, dtype=torch.float32).reshape(2, 4),
        "conv.bias": torch.zeros(2, dtype=torch.float64),
        "bn.num_batches_tracked": torch.tensor(3),
    }


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}
