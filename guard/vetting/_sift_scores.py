"""The scores of all methods that look at a training set, and the rates that follow from them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.core.errors import Cancelled, GuardError
from guard.core.progress import Progress, part_of
from guard.core.sift import ScoreSummary, SiftRules
from guard.sifters import SIFTERS

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.sifting.conformal import Null
    from guard.ml.sifting.discoveries import Discoveries
    from guard.sifters._base import Scores
    from guard.trainsets import TrainingSet

QUANTILES = {"least": 0.0, "median": 0.5, "q90": 0.9, "q99": 0.99, "most": 1.0}


def scored(
    model: "ImageModel",
    train: "TrainingSet",
    curated: "CuratedSet",
    methods: Mapping[str, Mapping[str, Any]],
    seed: int,
    end: float,
    progress: Progress,
) -> tuple[dict[str, "Scores"], tuple[ScoreSummary, ...]]:
    """The scores of each method by its name, and a line about each method.

    `end` is the monotonic time by which all are done.
    """
    found: dict[str, Scores] = {}
    summaries = []
    for index, (name, given) in enumerate(methods.items()):
        step = part_of(progress, index, len(methods), name)
        begun, sifter = time.monotonic(), SIFTERS.get(name)(**given)
        summary = ScoreSummary(
            method=name,
            version=sifter.version,
            parameters=sifter.parameters(),
            seconds=0.0,
            poisoning=tuple(sorted(sifter.poisoning)),
        )
        left = max(0.0, end - begun)
        try:
            scores = sifter(model, train, curated.visible(), seed=seed, progress=step, seconds=left)
        except Cancelled:
            raise
        except GuardError as error:
            summary = replace(summary, failed=error.sentence)
        except Exception as error:  # noqa: BLE001 - a crash of one method is part of the report
            summary = replace(summary, failed=f"{type(error).__name__}: {error}")
        else:
            found[name] = scores
            null = 0 if scores.null is None else len(scores.null)
            summary = replace(summary, null=null, quantiles=_quantiles(scores.train))
        summaries.append(replace(summary, seconds=time.monotonic() - begun))
    return found, tuple(summaries)


def _quantiles(scores: np.ndarray) -> dict[str, float]:
    return {key: float(np.quantile(scores, share)) for key, share in QUANTILES.items()}


def joined(
    deciding: Mapping[str, "Scores"], train: "TrainingSet"
) -> tuple[np.ndarray, "Null", dict[str, tuple[np.ndarray, "Null"]]]:
    """One score an image, its clean scores, and both of each method by its name."""
    from guard.ml.sifting.conformal import Null
    from guard.ml.sifting.conformal import joined as as_one

    single = {
        name: (one.train, Null(one.null, one.null_labels, train.classes))
        for name, one in deciding.items()
        if one.null is not None and one.null_labels is not None
    }
    scores, nulls = zip(*single.values(), strict=True)
    score, null = as_one(scores, nulls, train.labels)
    return score, null, single


def discoveries(
    both: tuple[np.ndarray, "Null"],
    single: Sequence[tuple[np.ndarray, "Null"]],
    train: "TrainingSet",
    rules: SiftRules,
) -> "Discoveries":
    """The false discovery rates after all looks: at all methods as one, and at each by itself."""
    from guard.ml.sifting.discoveries import in_turn

    return in_turn(
        both,
        single,
        train.labels,
        level=rules.max_fdr,
        least=rules.min_images,
        fold=rules.fold,
    )
