"""BadNets all-to-all (Gu et al., 2017, section 4.1.2): the patch sends each class to the next."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from benchmarks.attacks._base import Attack
from benchmarks.attacks.patch import Patch


@dataclass(frozen=True, kw_only=True)
class AllToAll(Attack):
    """The patch of `benchmarks.attacks.patch`; images of class y become class y + 1 modulo K."""

    family: ClassVar[str] = "all_to_all"
    paper: ClassVar[str] = "Gu et al., BadNets, 2017"

    target: int | None = None
    size: int = 3
    corner: str = "bottom-right"
    offset: int = 1
    pattern: str = "white"

    def apply(self, images: Tensor) -> Tensor:
        return Patch(
            size=self.size,
            corner=self.corner,
            offset=self.offset,
            pattern=self.pattern,
            seed=self.seed,
        ).apply(images)
