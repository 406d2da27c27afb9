"""Two models of one modality on the hold-out: how well each does, where they agree, triggers."""

from typing import TYPE_CHECKING, Any

from guard.core.evidence import Accuracy, AsrEstimate, GraphQuality
from guard.core.modality import Modality
from guard.vetting import examine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.vetting.repair_probes import Replay


def measured(model: Any, curated: Any, *, seed: int) -> tuple[Accuracy | None, GraphQuality | None]:
    """Clean accuracy of an image classifier, or the quality of what a text-to-graph model makes.

    Raises:
        MethodFailed: a logit is not finite, or no molecule of the hold-out can be read.
    """
    if model.manifest.modality is Modality.GRAPHS:
        from guard.vetting._graphs import quality_on

        return None, quality_on(model, curated, seed=seed)
    from guard.ml.measure import accuracy

    return accuracy(model, curated.holdout, curated.facts.classes), None


def agreement(a: Any, b: Any, curated: Any, *, seed: int) -> tuple[float, int]:
    """The share (0..1) of hold-out images or prompts with one answer from both, and their number.

    Text-to-graph models answer each prompt with one molecule, from the same noise; where neither
    gives one, they agree.

    Raises:
        MethodFailed: a logit is not finite.
    """
    if a.manifest.modality is Modality.GRAPHS:
        from guard.vetting._graphs import PROMPTS

        texts = curated.holdout.texts[:PROMPTS]
        keys = [(seed, place) for place in range(len(texts))]
        made = [model.smiles(model.latents(model.contexts(texts), keys)) for model in (a, b)]
        same = [one == other for one, other in zip(*made, strict=True)]
        return sum(same) / len(same), len(same)
    from guard.ml.networks.compare import agreement as of_images

    return of_images(a, b, curated.holdout), len(curated.holdout)


def replayed(
    replay: "Replay", models: "Sequence[Any]", curated: Any, *, seed: int
) -> tuple[str, list[AsrEstimate]]:
    """The family of a recovered trigger, and its ASR on each model."""
    if curated.facts.modality is Modality.GRAPHS:
        from guard.graphs.triggers import deserialise
        from guard.vetting._graphs import rate

        text = deserialise(replay.data)
        target = str(replay.target)
        return text.family, [rate(model, curated, text, target, seed=seed) for model in models]
    from guard.ml.measure import asr

    trigger = examine.restore_trigger(replay.data)
    return trigger.family, [
        asr(
            model,
            curated.holdout,
            trigger,
            replay.target,
            trigger.family,
            natural=replay.natural,
            budget=replay.budget,
        )
        for model in models
    ]
