"""What is known of accused images: by class, as a map of classes, and one by one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from guard.core.digests import sha256
from guard.core.sift import LabelMap, Poisoning, SiftedClass, SiftRules, SuspectTrigger
from guard.core.trainset import Suspect

if TYPE_CHECKING:
    from guard.ml.cleanset import CuratedSet, Labelled
    from guard.ml.networks.architectures import ImageModel
    from guard.ml.sifting.discoveries import Discoveries
    from guard.ml.sifting.moments import Estimated
    from guard.trainsets import TrainingSet

MOST_READ = 500  # suspects of a class that the model is run on, and that a trigger is made from
MOST_SIBLINGS = 9


@dataclass(frozen=True, kw_only=True)
class View:
    """All that a description rests on; arrays are in the order of the training set.

    `score` is float64 N, `estimated` int64 N with -1 where the reference is unsure.
    """

    model: "ImageModel"
    train: "TrainingSet"
    curated: "CuratedSet"
    rules: SiftRules
    seed: int
    score: np.ndarray
    rates: "Discoveries"
    least_p: float
    estimated: np.ndarray | None

    def sources(self, places: np.ndarray) -> np.ndarray:
        """The estimated classes int64 n of images, -1 where unsure or where nobody estimates."""
        if self.estimated is None:
            return np.full(len(places), -1, np.int64)
        return np.asarray(self.estimated[places])

    def read(self, places: np.ndarray) -> "Labelled":
        """Images of the training set."""
        from guard.ml.sifting.shares import as_labelled

        parts = list(self.train.batches(index=places))
        return as_labelled(
            np.concatenate([part.images for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )


def classes(view: View) -> tuple[tuple[SiftedClass, ...], dict[str, bytes]]:
    """Every class, and the bytes of the triggers that were estimated, by digest."""
    from guard.ml.sifting.discoveries import standing_out

    labels, rules = view.train.labels, view.rules
    accused = view.rates.rates <= rules.max_fdr
    counts = np.bincount(labels[accused], minlength=view.train.classes)
    standing = standing_out(counts, least=rules.min_images, fold=rules.fold)
    found: list[SiftedClass] = []
    triggers: dict[str, bytes] = {}
    for row, name in enumerate(view.train.facts.class_names):
        images = int((labels == row).sum())
        plain = SiftedClass(
            label=row,
            name=name,
            images=images,
            accused=int(counts[row]),
            resolved=math.ceil(images * view.least_p / rules.max_fdr),
        )
        if row in standing:
            places = np.flatnonzero(accused & (labels == row))
            plain, made = _described(view, plain, places, standing)
            triggers |= made
        found.append(plain)
    return tuple(found), triggers


def _described(
    view: View, plain: SiftedClass, places: np.ndarray, standing: Sequence[int]
) -> tuple[SiftedClass, dict[str, bytes]]:
    """A class that stands out, with its accused images at `places`."""
    from guard.ml.sifting.moments import estimated
    from guard.ml.sifting.shares import obeyed

    sources = view.sources(places)
    strange = (sources >= 0) & (sources != plain.label)
    counts = np.bincount(sources[strange], minlength=view.train.classes)
    sure = int((sources >= 0).sum())
    # Where nobody estimates classes, no obedience is measured, and a person decides.
    clean = sure > 0 and counts.sum() * 2 < sure
    source_share = float(counts.max() / counts.sum()) if counts.any() else None
    described = replace(
        plain,
        stands_out=True,
        poisoning=Poisoning.CLEAN_LABEL if clean else Poisoning.DIRTY_LABEL,
        sources=tuple(int(count) for count in counts),
        source_share=source_share,
    )
    obeying = _some(places if clean else places[strange], view.score)
    if len(obeying):
        described = replace(described, obedience=obeyed(view.model, view.read(obeying)))
    every = _some(places, view.score)
    if not len(obeying) or clean or (source_share or 0.0) >= view.rules.max_source_share:
        return _beside_siblings(view, described, every, standing)
    if described.obedience is not None and described.obedience.low <= view.rules.max_obedience:
        # The model ignores many of them; what they carry may work all the same.
        beside, bytes_of = _beside_siblings(view, described, every, standing)
        return replace(beside, poisoning=described.poisoning), bytes_of
    made = estimated(
        view.model, view.read(obeying), view.sources(obeying), view.curated, plain.label
    )
    return _with_trigger(described, made, None)


def _beside_siblings(
    view: View, plain: SiftedClass, places: np.ndarray, standing: Sequence[int]
) -> tuple[SiftedClass, dict[str, bytes]]:
    """A class whose suspects' sources say nothing, with a trigger that siblings are compared with.

    A pattern over the whole image may make the reference see one class in all of them. So they are
    set beside clean images of their own label, as clean-label poison is made of them, and beside
    images of all other classes alike; the trigger that is farther ahead of its siblings says
    which. That is a guess: of a blend that the reference takes for one class it may be wrong.
    """
    from guard.ml.sifting.moments import estimated

    images, found = view.read(places), []
    for poisoning in (Poisoning.CLEAN_LABEL, Poisoning.DIRTY_LABEL):
        origins = _origins(view, plain.label, len(places), poisoning)
        made = estimated(view.model, images, origins, view.curated, plain.label)
        if made is not None:
            siblings = _siblings(view, standing, len(places), made.trigger.family, poisoning)
            found.append((made.rate - siblings, poisoning, made, siblings))
    if not found:
        return plain, {}
    ahead, poisoning, made, siblings = max(found, key=lambda one: one[0])
    if ahead > 0:
        plain = replace(plain, poisoning=poisoning)
    return _with_trigger(plain, made, siblings)


def _origins(view: View, label: int, count: int, poisoning: Poisoning) -> np.ndarray:
    """The classes int64 n beside which suspects of a label are set: its own, or all others."""
    if poisoning is Poisoning.CLEAN_LABEL:
        return np.full(count, label)
    others = np.delete(np.arange(view.train.classes), label)
    return np.asarray(others[np.arange(count) % len(others)])


def _with_trigger(
    plain: SiftedClass, made: "Estimated | None", siblings: float | None
) -> tuple[SiftedClass, dict[str, bytes]]:
    """A class with its trigger, and the trigger's bytes by their digest."""
    if made is None:
        return plain, {}
    from guard.ml.triggers.files import serialise

    data = serialise(made.trigger)
    trigger = SuspectTrigger(
        digest=sha256(data), family=made.trigger.family, asr=made.asr, siblings=siblings
    )
    return replace(plain, trigger=trigger), {trigger.digest: data}


def _siblings(
    view: View, standing: Sequence[int], count: int, family: str, poisoning: Poisoning
) -> float:
    """The best ASR of the same estimate from the most conspicuous images of another class."""
    from guard.ml.sifting.moments import estimated

    others = [row for row in range(view.train.classes) if row not in standing][:MOST_SIBLINGS]
    rates = [0.0]
    for row in others:
        own = np.flatnonzero(view.train.labels == row)
        chosen = own[np.argsort(-view.score[own], kind="stable")[:count]]
        made = estimated(
            view.model,
            view.read(chosen),
            _origins(view, row, len(chosen), poisoning),
            view.curated,
            row,
            family=family,
        )
        if made is not None:
            rates.append(made.asr.estimate)
    return max(rates)


def label_map(view: View) -> tuple[LabelMap | None, np.ndarray]:
    """A coherent map among the images that are accused without their siblings, and their places."""
    from guard.ml.sifting import discoveries
    from guard.ml.sifting.shares import obeyed

    nobody = np.empty(0, np.int64)
    if view.estimated is None:
        return None, nobody
    moved = discoveries.label_map(
        view.estimated,
        view.train.labels,
        view.rates.alone <= view.rules.max_fdr,
        view.train.classes,
    )
    if moved is None:
        return None, nobody
    found = LabelMap(
        mapping=tuple(int(label) for label in moved.mapping),
        images=len(moved.members),
        share=moved.share,
        mutual=moved.mutual,
        obedience=obeyed(view.model, view.read(_some(moved.members, view.score))),
    )
    return found, moved.members


def suspects(
    view: View, places: np.ndarray, rates: np.ndarray, own: Mapping[str, np.ndarray]
) -> tuple[Suspect, ...]:
    """The accused images at `places`, with their `rates` and the p values `own` of each method.

    `rates` and those of `own` are float64 N, of all images.

    Which of them are kept for the proof is decided by their pixels, so that copies of an image go
    the same way.
    """
    sources = view.sources(places)
    found: list[Suspect] = []
    for batch in view.train.batches(index=places):
        for index, image in zip(batch.index.tolist(), batch.images, strict=True):
            source = int(sources[len(found)])
            found.append(
                Suspect(
                    index=index,
                    label=int(view.train.labels[index]),
                    estimated=source if source >= 0 else None,
                    fdr=float(rates[index]),
                    source=view.train.name_of(index),
                    proof=is_proof(image, view.rules.proof),
                    numbers={name: float(values[index]) for name, values in own.items()},
                )
            )
    return tuple(found)


def is_proof(image: np.ndarray, share: float) -> bool:
    """Whether an image uint8 C,H,W belongs to the `share` that is kept for the proof."""
    return int(sha256(np.ascontiguousarray(image).tobytes())[:8], 16) < share * 2**32


def _some(places: np.ndarray, score: np.ndarray) -> np.ndarray:
    """At most `MOST_READ` of the places, the most conspicuous, in rising order."""
    return np.sort(places[np.argsort(-score[places], kind="stable")[:MOST_READ]])
