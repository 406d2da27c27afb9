"""The contract of a defense that learns from accused training images."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.defenses._base import Defense
from guard.ml.cleanset import CleanSet, Labelled


@dataclass(frozen=True)
class Accused:
    """What a sift found, as images; none of the proof part is among them.

    Attributes:
        suspects: the accused images with their labels in the training set.
        relabelled: int64 N, for each suspect the class that a clean reference gives it, -1 where it
            is unsure.
        trusted: the least conspicuous training images of each class.
    """

    suspects: Labelled
    relabelled: Tensor
    trusted: Labelled


@dataclass(frozen=True, kw_only=True)
class InformedDefense(Defense):
    """A defense for models whose training set was sifted.

    Its parameters are plain values like those of every defense; the accused images are bound to it
    by `informed`, just before it is called.
    """

    @abstractmethod
    def repair_informed(
        self, model: nn.Module, clean: CleanSet, accused: Accused, *, progress: Progress
    ) -> nn.Module:
        """As `Defense.repair`, with what the sift found."""

    @final
    def informed(self, accused: Accused) -> "InformedDefense":
        """This defense with the accused images that its next call learns from."""
        own = replace(self)
        object.__setattr__(own, "_accused", accused)
        return own

    @final
    def repair(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> nn.Module:
        """Repair with the accused images.

        Raises:
            MethodFailed: no training set was sifted for this model.
        """
        accused: Accused | None = getattr(self, "_accused", None)
        if accused is None:
            raise MethodFailed(
                f"{type(self).__name__} learns from accused training images, and no training set "
                "of this model was sifted.",
                code="no_suspects",
            )
        return self.repair_informed(model, clean, accused, progress=progress)
