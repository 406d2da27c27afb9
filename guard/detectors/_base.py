"""The contract of a detector and the promises the base class keeps for it."""

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
from guard.core.progress import Progress, silent
from guard.ml.cleanset import CleanSet
from guard.ml.deadline import guarded
from guard.ml.seeds import seeded


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """Looks for a backdoor, given only the model, clean data and a seed.

    A subclass is a frozen dataclass of plain parameters, each with a default, and one method
    `examine`. Calling the detector runs `examine` on a copy of the model in eval mode with
    gradients off for its parameters, in a region of its own random state, within a time budget; the
    caller's model is left as it was, to the bit.

    `families` says which trigger families it speaks about; coverage is reported, not assumed.
    """

    version: ClassVar[int]
    paper: ClassVar[str]
    families: ClassVar[frozenset[str]]

    @abstractmethod
    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        """Findings, suspicious or not; an empty list means that it looked and found nothing to say.

        `model` takes float images in [0, 1], N,C,H,W, and returns logits N,K; it is this call's own
        copy. Random numbers come from torch's global generators, which the caller has seeded.

        Raises:
            MethodFailed: it could not look, and why.
        """

    def prepare(  # noqa: B027 - most detectors have nothing to prepare
        self, clean: CleanSet, device: torch.device, *, progress: Progress = silent
    ) -> None:
        """Work out what depends on the clean set alone.

        And leave it where `examine` finds it in this process.

        Most detectors have nothing such. What is left must not depend on who asks:
        `guard.flow._cleanset_cache` carries it to the scans of all models that are examined with
        this clean set on this machine.
        """

    def parameters(self) -> dict[str, Any]:
        """The plain parameters, JSON-ready; part of the evidence key."""
        return asdict(self)

    @final
    def __call__(
        self,
        model: nn.Module,
        clean: CleanSet,
        *,
        seed: int,
        progress: Progress = silent,
        seconds: float = math.inf,
    ) -> list[Finding]:
        """Run `examine` with all promises kept.

        Args:
            model: on any device; neither its parameters, its buffers nor its mode change.
            seed: same seed, same findings, to the bit, on one machine.
            progress: told about progress; raises to cancel.
            seconds: time budget.

        Raises:
            MethodFailed: it could not look; also for non-finite numbers. Subclasses OutOfTime,
                Cancelled.
        """
        own = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
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


def _plain(finding: Finding) -> Finding:
    """Python's own numbers: what NumPy or torch give does not survive JSON."""
    numbers = {name: float(number) for name, number in finding.numbers.items()}
    return replace(
        finding, score=float(finding.score), suspicious=bool(finding.suspicious), numbers=numbers
    )
