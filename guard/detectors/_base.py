"""The contract of a detector, and the guarantees that its base class gives."""

import copy
import math
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import nn

from guard.core.errors import MethodFailed
from guard.core.evidence import Finding
from guard.core.modality import Modality, require
from guard.core.planned import Passes, Plan, Sizes
from guard.core.plugins import marked
from guard.core.progress import Progress, silent
from guard.ml.deadline import guarded
from guard.ml.networks.canonical_form import IMAGES, canonical_form
from guard.ml.search import mobility
from guard.ml.seeds import seeded

USUAL_STEPS = 6  # that the look whether a search can move takes on a model as training leaves it


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """Searches for a backdoor, given only the model, clean data and a seed.

    A subclass is a frozen dataclass of plain parameters, each with a default, and one method
    `examine`. Calling the detector runs `examine` on a copy of the model, in canonical form
    (`guard.ml.networks.canonical_form`: the same outputs) where its weights were rewritten, in
    eval mode with gradients off for its parameters, with its own random state, within a time
    budget; the caller's model is left unchanged, to the bit.

    `families` are the trigger families that it covers; coverage is reported, not assumed.
    """

    version: ClassVar[int]
    paper: ClassVar[str]
    families: ClassVar[frozenset[str]]
    #: Whether it looks by following gradients: then a network that gives none cannot be looked at.
    searches: ClassVar[bool] = True
    #: The models that it is for. A file states it where they are others than images, so that a
    #: policy can be checked without importing a method (`guard.core.shelf`).
    modality: ClassVar[Modality] = Modality.IMAGES
    #: Whether it draws a battery of changes (`guard.ml.search.battery`); evidence then commits to
    #: the secret that it was drawn from.
    draws_battery: ClassVar[bool] = False

    @abstractmethod
    def examine(self, model: Any, clean: Any, *, progress: Progress) -> list[Finding]:
        """Findings, suspicious or not; an empty list means that nothing was found.

        `model` is a copy for this call, `clean` the visible part of the clean set: a module from
        float images N,C,H,W in [0, 1] to logits N,K with a `guard.ml.cleanset.CleanSet`; for
        another modality what `guard.vetting.modalities` opens. Random numbers come from torch's
        global generators, which the caller has seeded.

        Raises:
            MethodFailed: the model could not be examined; the message gives the reason.
        """

    def prepare(  # noqa: B027 - most detectors have nothing to prepare
        self, clean: Any, device: torch.device, *, progress: Progress = silent
    ) -> None:
        """Compute what depends on the clean set alone, and keep it for `examine` in this process.

        Most detectors have nothing to compute. The result must not depend on the caller: other
        scans with this clean set on this machine get it from `guard.flow._cleanset_cache`.
        """

    def prepared(self, clean: Any, device: torch.device) -> bool:
        """Whether what `prepare` computes is kept in this process already."""
        del clean, device
        return False

    def planned(self, sizes: Sizes) -> Plan | None:
        """The images that `examine` passes through a model of images, from the parameters.

        Without it nobody knows what the method costs: an estimate says so, and a time budget can
        end the method but not spare it. No run may pass more than the plan's `most`; the contract
        suite counts.
        """
        del sizes
        return None

    @final
    def plan(self, sizes: Sizes) -> Plan | None:
        """`planned`, and what every call passes before `examine`; None where that is unknown."""
        own = self.planned(sizes)
        return None if own is None else own + _entrance(sizes, searches=self.searches)

    @final
    def parameters(self) -> dict[str, Any]:
        """The plain parameters, JSON-ready; part of the evidence key.

        Those of a plug-in from outside the package include its file's digest.
        """
        return marked(type(self), asdict(self))

    @classmethod
    def quick(cls) -> dict[str, Any]:
        """Parameters of a fast run: enough work to see that a promise holds, no more.

        The contract suite builds every detector with these, so that it lists none by name; empty
        means the defaults.
        """
        return {}

    @final
    def __call__(
        self,
        model: nn.Module,
        clean: Any,
        *,
        seed: int,
        progress: Progress = silent,
        seconds: float = math.inf,
    ) -> list[Finding]:
        """Run `examine` with the guarantees of the class.

        Args:
            model: on any device; neither its parameters, its buffers nor its mode change.
            clean: what methods may see.
            seed: the same seed gives the same findings, to the bit, on one machine.
            progress: called with the share done; raises to cancel.
            seconds: time budget.

        Raises:
            MethodFailed: the model could not be examined, or a number is not finite. Subclasses:
                OutOfTime, Cancelled.
        """
        require(self.modality, model, type(self).__name__)
        own = self._own_copy(model, clean).requires_grad_(requires_grad=False)
        if self.searches and self.modality is Modality.IMAGES:
            mobility.require_mobility(own, clean, type(self).__name__)
        watch = guarded(progress, deadline=time.monotonic() + seconds)
        with seeded(seed):
            findings = self.examine(own, clean, progress=watch)
        findings = [_plain(finding) for finding in findings]
        for finding in findings:
            numbers = [finding.score, *finding.numbers.values()]
            if not all(math.isfinite(number) for number in numbers):
                raise MethodFailed(
                    f"{type(self).__name__} gave a number that is not finite.", code="non_finite"
                )
        return findings

    def _own_copy(self, model: nn.Module, clean: Any) -> nn.Module:
        if self.modality is Modality.IMAGES:
            found = canonical_form(model, clean.search)
            # A network as training leaves it is examined as it is, which is how methods were
            # measured.
            if found.rewritten:
                return found.model
        return copy.deepcopy(model).eval()


def _plain(finding: Finding) -> Finding:
    """Convert to Python's own numbers, since those of NumPy and torch cannot be written as JSON."""
    numbers = {name: float(number) for name, number in finding.numbers.items()}
    return replace(
        finding, score=float(finding.score), suspicious=bool(finding.suspicious), numbers=numbers
    )


def _entrance(sizes: Sizes, *, searches: bool) -> Plan:
    """The images of the canonical form and of the look whether a search can move."""
    looked = min(IMAGES, sizes.search)
    rewritten = Plan(
        least=Passes(forward=3 * looked + 2),
        usual=Passes(forward=4 * looked + 2),
        most=Passes(forward=5 * looked + 2),
    )
    if not searches:
        return rewritten
    once = mobility.STARTS * min(mobility.MOST_CLASSES, sizes.classes)
    steps = (1, USUAL_STEPS, mobility.STEPS)
    least, usual, most = (Passes(searched=once * step + mobility.LOOKED_AT) for step in steps)
    return rewritten + Plan(least=least, usual=usual, most=most)
