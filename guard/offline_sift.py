"""The public Python API for training sets: sift the one that taught a model."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.errors import TrainingSetError
from guard.core.manifest import is_bucket_uri
from guard.core.progress import Progress, part_of, silent
from guard.core.sift import SiftReport
from guard.core.trainset import TrainingSetSource
from guard.offline_inputs import (
    image_set,
    nothing_stored,
    policy_of,
    require_images,
    vettable_at,
)
from guard.trainsets import TrainingSet, read
from guard.vetting import examine
from guard.vetting.training_set import Sifted, sift_named

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.policy import Policy


def sift(
    path: str | Path,
    training_set: "str | Path | TrainingSet",
    *,
    cleanset: "str | Path | CuratedSet",
    policy: "str | Path | Policy | None" = None,
    methods: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    seconds: float = math.inf,
) -> SiftReport:
    """Look for poison in the training set that taught a model.

    A sift accuses images, and the model that obeys them. It clears nobody: whoever uploads a model
    may name an innocent set.

    Args:
        path: as `guard.load_model`.
        training_set: an image folder, a Parquet file, an `.npz`, a folder of such files, a stored
            name, `s3://bucket/prefix/` of an allowed bucket, or a set that is read already.
        cleanset: as `guard.scan`.
        policy: a TOML file, whose section `training_set` counts; None for the default policy.
        methods: parameters by sifter's name; by default those that decide.
        seed: the same seed gives the same report, to the bit, on one machine.
        device: a torch device; None takes CUDA where there is one.
        seconds: time budget of all methods together.

    Raises:
        InputError: there is no such file, set or policy, or the training set cannot be read. One
            that is not this model's is no error: the report states that the sift could not look.
        ArtifactRejected: the model is none that the guard can open.
    """
    with sifting(
        path,
        training_set,
        cleanset=cleanset,
        policy=policy,
        methods=methods,
        seed=seed,
        device=device,
        progress=progress,
        seconds=seconds,
    ) as found:
        return found.report


@contextmanager
def sifting(
    path: str | Path,
    training_set: "str | Path | TrainingSet",
    *,
    cleanset: "str | Path | CuratedSet",
    policy: "str | Path | Policy | None" = None,
    methods: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    seconds: float = math.inf,
) -> Iterator[Sifted]:
    """As `sift`, with the images at hand inside the block: they lie in a temporary folder.

    Raises:
        InputError: as `sift`; so for ArtifactRejected.
    """
    rules, watch = policy_of(policy), progress or silent
    with tempfile.TemporaryDirectory() as folder:
        inspected = vettable_at(Path(path), Path(folder))
        model = examine.open_model(inspected.canonical, device=device)
        curated = image_set(cleanset)
        with opened(training_set, model, progress=part_of(watch, 0, 2, "")) as (train, source):
            yield sift_named(
                model,
                train,
                source,
                curated,
                rules.training_set,
                methods=methods,
                seed=seed,
                seconds=seconds,
                progress=part_of(watch, 1, 2, ""),
            )


@contextmanager
def opened(
    training_set: "str | Path | TrainingSet",
    model: "ImageModel",
    *,
    progress: Progress = silent,
) -> Iterator[tuple[TrainingSet, TrainingSetSource]]:
    """A training set decoded for a model, as long as the block lasts.

    Where no digest and no class names are given with it, those of the model's manifest count if
    that names the same set.

    Raises:
        TrainingSetError: there is none, or it cannot be read.
    """
    require_images(model.manifest.modality)
    if isinstance(training_set, TrainingSet):
        yield training_set, TrainingSetSource(uri=training_set.facts.uri)
        return
    shape = model.manifest.input_size
    place, named = Path(training_set), model.manifest.training_set
    if place.exists():
        source = TrainingSetSource(uri=str(training_set))
        with tempfile.TemporaryDirectory() as folder:
            yield read(place, Path(folder), shape=shape, progress=progress), source
        return
    from guard.bootstrap import open_guard
    from guard.flow import trainsets

    guard = open_guard()
    if nothing_stored(guard) and not is_bucket_uri(str(training_set)):
        raise TrainingSetError(
            f"{str(training_set)!r:.200} is no file, no folder and no stored training set.",
            code="trainset_unknown",
        )
    if named is not None and named.uri == str(training_set):
        source = trainsets.resolve(guard, named)
    else:
        source = trainsets.source_of(guard, str(training_set))
    with guard.workspace() as folder:
        yield trainsets.read(guard, source, folder, shape=shape, progress=progress), source


def page(found: Sifted) -> str:
    """The HTML page about a sift, with its most conspicuous images."""
    from guard.reports import sift_page
    from guard.vetting.sift_images import shown_images

    images = shown_images(found)
    return sift_page.page(found.report, images.suspects, images.clean, images.triggers)
