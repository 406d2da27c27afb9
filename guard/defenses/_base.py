"""The contract of a defense, and the guarantees that its base class gives."""

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, ClassVar, final

import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.core.modality import Modality, require
from guard.core.plugins import marked
from guard.core.progress import Progress, silent
from guard.ml.accused import Accused
from guard.ml.deadline import guarded
from guard.ml.precision import repeatable
from guard.ml.seeds import seeded


def fixed(**parameters: Any) -> Mapping[str, Any]:
    """Parameters by name, which nobody can change."""
    return MappingProxyType(parameters)


@dataclass(frozen=True, kw_only=True)
class Defense(ABC):
    """Repairs a model, given only the model, clean data and a seed.

    It gets no information on whether or how the model was attacked. A subclass is a frozen
    dataclass of plain parameters, each with a default, and one method `repair`.
    """

    version: ClassVar[int]
    paper: ClassVar[str]
    #: The models that it is for, as of a detector.
    modality: ClassVar[Modality] = Modality.IMAGES
    #: Whether it draws a battery of changes, as of a detector; the facts of a repair then commit to
    #: the secret.
    draws_battery: ClassVar[bool] = False
    fast: ClassVar[Mapping[str, Any]] = fixed()  # the defaults that `quick` changes
    ungated: ClassVar[Mapping[str, Any]] = fixed()  # the same for an untrained model

    @abstractmethod
    def repair(self, model: Any, clean: Any, *, progress: Progress) -> nn.Module:
        """Return the repaired model: `model` changed in place, or a new one.

        `model` is a copy for this call: a module from float images N,C,H,W in [0, 1] to logits N,K,
        with a `guard.ml.cleanset.CleanSet` as `clean`; for another modality what
        `guard.vetting.modalities` opens. Random numbers come from torch's global generators,
        which the caller has seeded.

        Raises:
            MethodFailed: this model cannot be repaired with this clean set; the message gives the
                reason.
        """

    @final
    def parameters(self) -> dict[str, Any]:
        """The plain parameters, JSON-ready.

        Those of a plug-in from outside the package include its file's digest.
        """
        return marked(type(self), asdict(self))

    @classmethod
    def quick(cls, *, untrained: bool = False) -> dict[str, Any]:
        """Parameters of a fast run: enough work to see that a promise holds, no more.

        The contract suite and the benchmark of repair costs build every defense with these, so that
        neither lists defenses by name. A method whose defaults are slow, or unfit for a small clean
        set, states `fast` and `ungated` of its own; empty means the defaults.

        Args:
            untrained: the model has learnt nothing, so that gates which would end the repair before
                its work must be open. A step sees 64 images; a search over ten classes, 6 of each.
        """
        return dict(cls.ungated if untrained else cls.fast)

    def informed(self, accused: Accused) -> "Defense":
        """This defense for a model whose training set was sifted.

        The accused images change nothing here: only an `InformedDefense` learns from them.
        """
        del accused
        return self

    @final
    def __call__(
        self,
        model: nn.Module,
        clean: Any,
        *,
        seed: int,
        progress: Progress = silent,
        seconds: float = math.inf,
    ) -> nn.Module:
        """Run `repair` on a copy of the model.

        The result is in eval mode, finite, with gradients on for its parameters. The same seed
        gives the same weights to the bit on one machine, on a GPU as well.

        Raises:
            MethodFailed: the model could not be repaired, or a weight is not finite. Subclasses:
                OutOfTime, Cancelled.
        """
        require(self.modality, model, type(self).__name__)
        own = copy.deepcopy(model).eval().requires_grad_()
        watch = guarded(progress, deadline=time.monotonic() + seconds)
        with seeded(seed), repeatable():
            repaired = self.repair(own, clean, progress=watch).eval()
        for name, tensor in repaired.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise MethodFailed(
                    f"{type(self).__name__} left {name} not finite.", code="non_finite"
                )
        return repaired.requires_grad_()
