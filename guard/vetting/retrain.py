"""Train a network anew on a set that was sifted, and write it as a new artifact."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.digests import json_digest, sha256
from guard.core.manifest import Manifest
from guard.core.progress import Progress, silent
from guard.core.retraining import RetrainingFacts
from guard.core.trainset import Suspect
from guard.retrainers import RETRAINERS
from guard.trainsets import Sifted, TrainingSet
from guard.vetting.accused import proof_images
from guard.vetting.modalities import fitted
from guard.vetting.parent_comparison import on_suspects
from guard.vetting.repair import crash_as_failure

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.training.checkpoints import Checkpoint


def request_of(
    manifest: Manifest,
    train: TrainingSet,
    curated: "CuratedSet",
    sifted: Sifted,
    method: str,
    parameters: Mapping[str, Any],
    *,
    seed: int,
) -> str:
    """SHA-256 of all that a training depends on, its code's version and torch's among it.

    Raises:
        UnknownMethod: there is no such method.
    """
    made = RETRAINERS.get(method)(**parameters)
    found = (sifted.suspects, sifted.proof, sifted.trusted, sifted.relabelled)
    return json_digest(
        {
            "manifest": manifest.digest,
            "training_set": train.facts.digest,
            "cleanset": curated.facts.digest,
            "sifted": [sha256(part.astype("<i8").tobytes()) for part in found],
            "method": [method, made.version, made.parameters()],
            "seed": seed,
            "torch": version("torch"),
        }
    )


def retrain(
    manifest: Manifest,
    train: TrainingSet,
    curated: "CuratedSet",
    sifted: Sifted,
    method: str,
    parameters: Mapping[str, Any],
    out: Path,
    *,
    checkpoint: "Checkpoint",
    parent: "tuple[ImageModel, str] | None" = None,
    seed: int = 0,
    progress: Progress = silent,
    device: str | None = None,
) -> tuple[str, RetrainingFacts]:
    """Train a network of the manifest's architecture, and write its canonical file to `out`.

    Args:
        manifest: of the new network; a polarizer that it names is left out.
        sifted: what a sift found in `train`.
        checkpoint: where the training's state is kept, for the request that `request_of` names.
        parent: the network that this one replaces, and its digest, if there is one.
        device: torch device; None takes CUDA where there is one.

    Returns:
        The new artifact's digest, and what is known of it. It is vetted like any upload.

    Raises:
        CleanSetError: the clean set does not fit the manifest.
        UnknownMethod: there is no such method.
        MethodFailed: nothing could be trained, or the method crashed; nothing was written. The
            state of the newest checkpoint is kept.
    """
    from guard.formats._canonical import write_canonical
    from guard.ml import measure
    from guard.ml.networks import architectures

    manifest = replace(manifest, polarizer=None)
    curated = fitted(manifest, curated)
    made = RETRAINERS.get(method)(**parameters)
    request = request_of(manifest, train, curated, sifted, method, parameters, seed=seed)
    classes = curated.facts.classes
    before = None if parent is None else measure.accuracy(parent[0], curated.holdout, classes)
    begun = time.monotonic()
    how: dict[str, Any] = {"checkpoint": checkpoint, "seed": seed}
    how |= {"progress": progress, "device": device}
    trained = crash_as_failure(lambda: made(manifest, train, curated.visible(), sifted, **how))
    spent = time.monotonic() - begun
    after = measure.accuracy(trained.model, curated.holdout, classes)
    digest = write_canonical(architectures.export(trained.model), manifest, out)
    return digest, RetrainingFacts(
        method=method,
        version=made.version,
        parameters=made.parameters(),
        request=request,
        parent="" if parent is None else parent[1],
        training_set=train.facts.digest,
        cleanset=curated.facts.digest,
        images=len(train),
        suspects=len(sifted.suspects),
        proof=len(sifted.proof),
        trusted=len(sifted.trusted),
        acc_before=before,
        acc_after=after,
        seconds=spent,
        seed=seed,
        numbers={name: value for name, value in trained.numbers.items() if math.isfinite(value)},
    )


def on_proof(
    facts: RetrainingFacts,
    parent: "ImageModel",
    child: "ImageModel",
    train: TrainingSet,
    suspects: Sequence[Suspect],
) -> RetrainingFacts:
    """The facts, with how both networks answer the accused images that nothing was trained on."""
    if not suspects:
        return facts
    found, unproved = on_suspects(parent, child, proof_images(train, suspects))
    return replace(facts, on_proof=tuple(found), unproved=tuple(unproved))
