"""One retraining from the sift to the file: what is kept on the way, and from where it goes on."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.digests import json_digest
from guard.core.errors import MethodFailed
from guard.core.progress import Progress, part, silent
from guard.core.retraining import RetrainingFacts
from guard.core.sift import SiftVerdict
from guard.core.trainset import TrainingSetSource
from guard.policy.rules import TrainingSetRule
from guard.retrainers import RETRAINERS
from guard.sifters import SIFTERS
from guard.trainsets import TrainingSet, for_model
from guard.vetting import retrain as training
from guard.vetting.parameters import checked
from guard.vetting.sift import DEFAULT_METHODS
from guard.vetting.training_set import sift_named

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.vetting.retrain_state import RetrainState
    from guard.vetting.sift import Sift

SIFTED, TRAINED = 0.25, 0.97  # of the progress


@dataclass(frozen=True, kw_only=True)
class RetrainRun:
    """One retraining: the model that it replaces, its set as it was read, and how it is done.

    `parameters` are those of the method, `sifters` parameters by sifter's name. `sift_seconds` is
    the time budget of the sift.

    Raises:
        UnknownMethod, InputError: there is no such method, or it takes no such parameters.
    """

    model: "ImageModel"
    digest: str
    train: TrainingSet
    source: TrainingSetSource
    curated: "CuratedSet"
    rule: TrainingSetRule
    method: str
    parameters: Mapping[str, Any]
    sifters: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: DEFAULT_METHODS)
    seed: int = 0
    device: str | None = None
    sift_seconds: float = math.inf
    progress: Progress = silent

    def __post_init__(self) -> None:
        checked(RETRAINERS.get(self.method), self.parameters)

    def key(self) -> str:
        """SHA-256 of all that the sift and the training depend on."""
        kind = RETRAINERS.get(self.method)
        sifters = {name: SIFTERS.get(name) for name in self.sifters}
        return json_digest(
            {
                "model": self.digest,
                "training_set": [self.train.facts.digest, self.source.class_names],
                "cleanset": self.curated.facts.digest,
                "rule": asdict(self.rule),
                "sifters": {
                    name: [found.version, found(**self.sifters[name]).parameters()]
                    for name, found in sifters.items()
                },
                "method": [self.method, kind.version, kind(**self.parameters).parameters()],
                "seed": self.seed,
                "device": self.device or "",
                "torch": version("torch"),
            }
        )

    def run(self, state: "RetrainState", out: Path) -> tuple[RetrainingFacts, TrainingSet, "Sift"]:
        """Sift or read the sift, then train or go on; the new network's canonical file is `out`.

        Returns:
            What is known of the network, without what it does with the proof part; the set in the
            model's own classes; and the sift.

        Raises:
            MethodFailed: the sift could not look, or nothing could be trained; nothing is written.
        """
        from guard.ml.training.checkpoints import FolderCheckpoint

        train, found = self._sifted(state)
        sifted = found.sifted()
        trained = (self.model.manifest, train, self.curated, sifted)
        how = (self.method, self.parameters)
        request = training.request_of(*trained, *how, seed=self.seed)
        _, facts = training.retrain(
            *trained,
            *how,
            out,
            checkpoint=FolderCheckpoint(state.folder, request),
            parent=(self.model, self.digest),
            seed=self.seed,
            progress=part(self.progress, SIFTED, TRAINED),
            device=self.device,
        )
        return facts, train, found

    def _sifted(self, state: "RetrainState") -> tuple[TrainingSet, "Sift"]:
        """The set in the model's own classes, and what a sift found in it, now or before."""
        if (known := state.load()) is not None:
            return for_model(self.train, self.source, self.model.manifest), known
        made = sift_named(
            self.model,
            self.train,
            self.source,
            self.curated,
            self.rule,
            methods=self.sifters,
            seed=self.seed,
            seconds=self.sift_seconds,
            progress=part(self.progress, 0, SIFTED, "sift"),
        )
        if made.report.verdict is SiftVerdict.COULD_NOT_LOOK:
            raise MethodFailed(
                f"Without a sift nothing is trained: {made.report.reasons[0]}",
                code="sift_could_not_look",
            )
        state.save(made.found)
        return made.train, made.found
