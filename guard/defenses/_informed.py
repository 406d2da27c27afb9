"""The contract of a defense that learns from accused training images."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import final

from torch import nn

from guard.core.errors import MethodFailed
from guard.core.progress import Progress
from guard.defenses._base import Defense
from guard.ml.accused import Accused
from guard.ml.cleanset import CleanSet

__all__ = ["Accused", "InformedDefense", "require_suspects"]


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


def require_suspects(count: int, *, at_least: int, method: str, kind: str = "accused") -> None:
    """Refuse to learn from too few training images.

    Args:
        count: how many there are.
        at_least: how many the method needs.
        method: the method's name as it appears in the error message.
        kind: which images they are.

    Raises:
        MethodFailed: there are fewer.
    """
    if count < at_least:
        raise MethodFailed(
            f"{method} needs at least {at_least} {kind} training images; there are {count}.",
            code="no_suspects",
        )
