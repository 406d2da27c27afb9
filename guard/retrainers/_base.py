"""The contract of a retrainer, and the guarantees that its base class gives."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, final

import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.core.manifest import Manifest
from guard.core.modality import Modality
from guard.core.plugins import marked
from guard.core.progress import Progress, silent
from guard.ml.cleanset import CleanSet
from guard.ml.devices import named
from guard.ml.precision import repeatable
from guard.ml.seeds import seeded
from guard.ml.training.checkpoints import Checkpoint
from guard.trainsets import Sifted, TrainingSet


@dataclass(frozen=True)
class Retrained:
    """A newly trained network, and numbers of its method (PSNR, accuracy of a control).

    `control` is a network that the method trained beside it for comparison, if it did; nobody
    serves it.
    """

    model: nn.Module
    numbers: Mapping[str, float] = field(default_factory=dict)
    control: nn.Module | None = None


@dataclass(frozen=True, kw_only=True)
class Retrainer(ABC):
    """Trains a network from scratch on a set that may be poisoned, given clean data and a seed.

    A subclass is a frozen dataclass of plain parameters, each with a default, and one method
    `retrain`. It gets no information on the trigger, the attack or which images are poisoned, but
    for what a sift found.
    """

    version: ClassVar[int]
    paper: ClassVar[str]
    #: The models that it trains, as of a detector.
    modality: ClassVar[Modality] = Modality.IMAGES
    fast: ClassVar[Mapping[str, Any]] = MappingProxyType({})  # the defaults that `quick` changes

    @abstractmethod
    def retrain(
        self,
        manifest: Manifest,
        train: TrainingSet,
        clean: CleanSet,
        sifted: Sifted,
        *,
        checkpoint: Checkpoint,
        progress: Progress,
        device: torch.device,
    ) -> Retrained:
        """The trained network, of the manifest's architecture, with its input transform inside.

        It lies on `device`, takes float images N,C,H,W in [0, 1] and returns logits N,K. Random
        numbers come from torch's global generators, which the caller has seeded; a run that goes on
        from a checkpoint restores their state from it.

        Raises:
            MethodFailed: nothing could be trained; the message gives the reason.
        """

    @final
    def parameters(self) -> dict[str, Any]:
        """The plain parameters, JSON-ready.

        Those of a plug-in from outside the package include its file's digest.
        """
        return marked(type(self), asdict(self))

    @classmethod
    def quick(cls) -> dict[str, Any]:
        """Parameters of a fast run: enough work to see that a promise holds, no more."""
        return dict(cls.fast)

    @final
    def __call__(
        self,
        manifest: Manifest,
        train: TrainingSet,
        clean: CleanSet,
        sifted: Sifted,
        *,
        checkpoint: Checkpoint,
        seed: int,
        progress: Progress = silent,
        device: torch.device | str | None = None,
    ) -> Retrained:
        """Run `retrain`; the result is in eval mode and finite, with gradients on.

        The same seed gives the same weights to the bit on one machine, with or without
        interruptions. `device` is CUDA by default where there is one.

        Raises:
            MethodFailed: nothing could be trained, or a weight is not finite. Subclasses:
                OutOfTime, Cancelled.
        """
        if manifest.modality is not self.modality:
            raise MethodFailed(
                f"{type(self).__name__} trains {self.modality} models alone.", code="modality"
            )
        with seeded(seed), repeatable():
            made = self.retrain(
                manifest,
                train,
                clean,
                sifted,
                checkpoint=checkpoint,
                progress=progress,
                device=named(None if device is None else str(device)),
            )
        made.model.eval().requires_grad_()
        for name, tensor in made.model.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise MethodFailed(
                    f"{type(self).__name__} left {name} not finite.", code="non_finite"
                )
        return made
