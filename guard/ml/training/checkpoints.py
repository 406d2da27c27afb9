"""Where a long training keeps its state: one safetensors file, with JSON in its header.

Nothing is ever pickled. A file is complete or not there: it is written beside its place, brought to
disk and renamed.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from guard.core.digests import canonical_json, is_digest
from guard.core.errors import IntegrityMismatch, Unavailable

PLAIN, DIGEST = "guard.training", "guard.digest"


class Checkpoint(Protocol):
    """Where a long training keeps its state, so that another process can go on to the bit."""

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest state that `save` was given for the same request; None where there is none.

        Tensors are on the CPU, with the shapes and types that they were saved with.
        """

    def save(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Keep tensors of any shape by name, and JSON-ready values; whole or not at all."""


class FolderCheckpoint:
    """The newest state of one request, as a file in a folder.

    Args:
        folder: created if it does not exist, readable by its owner only.
        request: SHA-256 of all that the training depends on. States of other requests may lie in
            the same folder, and are never loaded for this one.

    Raises:
        ValueError: `request` is no SHA-256.
    """

    def __init__(self, folder: Path, request: str) -> None:
        if not is_digest(request):
            raise ValueError("a request is named by a SHA-256")
        self.folder = folder
        self.request = request

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / f"{self.request}.safetensors"

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """As `Checkpoint.load`, tensors of any shape on the CPU.

        Raises:
            IntegrityMismatch: the file's bytes are not those that were written.
            Unavailable: the file is there and cannot be read.
        """
        if not self.path.exists():
            return None
        try:
            with _usable(self.path), safetensors.safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                names: list[str] = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
            plain = json.loads(metadata[PLAIN])
            same = metadata[DIGEST] == _digest(tensors, metadata[PLAIN])
        except (KeyError, ValueError, safetensors.SafetensorError):
            same = False
        if not same:
            raise IntegrityMismatch(
                f"The training's checkpoint {self.path.name} is damaged; delete it and train from "
                "the start.",
                code="training_checkpoint_damaged",
            )
        return tensors, plain

    def save(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """As `Checkpoint.save`, tensors of any shape.

        Raises:
            Unavailable: the folder cannot be written; the state before is still there.
        """
        own = {
            # Each with memory of its own: safetensors refuses two that share it.
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        text = canonical_json(plain).decode()
        data = safetensors.torch.save(own, metadata={PLAIN: text, DIGEST: _digest(own, text)})
        beside = self.folder / f".{self.request}.part"  # of one writer: a run is one process
        with _usable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
            _sync_folder(self.folder)

    def forget(self) -> None:
        """Delete the state, once its result is safe elsewhere."""
        with _usable(self.folder):
            self.path.unlink(missing_ok=True)
            (self.folder / f".{self.request}.part").unlink(missing_ok=True)


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        sha.update(f"\0{name}\0{tensors[name].dtype}\0{tuple(tensors[name].shape)}\0".encode())
        sha.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"The training's checkpoint at {path} cannot be used: {error.strerror}.",
            code="training_checkpoint",
        ) from error
