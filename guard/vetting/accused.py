"""What a sift accused, as images in memory: some teach a repair, the others are its proof.

The engine of the sift gives places in the training set; here they become what `guard.defenses` and
`guard.vetting.parent_comparison` need, and bytes by which a job hands them to another.
"""

import io
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from guard.core.errors import InputError
from guard.core.evidence import Target
from guard.core.states import Family
from guard.core.trainset import Suspect
from guard.policy.rules import TrainingSetRule
from guard.reports.report import TrainingImage
from guard.vetting.repair_probes import Replay

if TYPE_CHECKING:
    from guard.ml.accused import Accused
    from guard.ml.cleanset import Labelled
    from guard.trainsets import TrainingSet

MOST = 5000  # images of each kind: more of them teach and prove no more
MOST_BYTES = 1 << 29  # the same as memory, for large images
MOST_SHOWN, MOST_BESIDE = 24, 8  # on a page
LEAST = 10  # proof images of a label for which a rate of its own says something


@dataclass(frozen=True)
class Proof:
    """Dirty-label suspects that no repair may learn from, with the labels that they were given.

    Each has another class by a clean reference, so that whoever still sends it to its label obeys
    the trigger on it. `fdr` is that of each suspect.
    """

    images: "Labelled"
    fdr: tuple[float, ...]


@dataclass(frozen=True)
class AccusedImages:
    """All images that a tournament needs of a sift.

    Attributes:
        taught: what an informed defense learns from.
        proof: what every candidate is tried on.
        moments: triggers estimated from the proof part, as trigger files.
    """

    taught: "Accused"
    proof: Proof
    moments: tuple[Replay, ...] = ()


def gathered(
    rule: TrainingSetRule,
    train: "TrainingSet",
    suspects: Sequence[Suspect],
    trusted: Sequence[int],
    moments: Sequence[Replay] = (),
) -> AccusedImages | None:
    """The images of a sift; None where fewer suspects count than the policy's rule asks for.

    Args:
        suspects: all that the sift accused, the proof part among them.
        trusted: places of the least conspicuous images of each class.
        moments: triggers estimated from the suspects of the proof part.
    """
    counted = [one for one in suspects if one.fdr <= rule.max_fdr]
    if len(counted) < rule.min_images:
        return None
    return AccusedImages(
        accused(train, counted, trusted), proof_images(train, counted), tuple(moments)
    )


def accused(train: "TrainingSet", suspects: Sequence[Suspect], trusted: Sequence[int]) -> "Accused":
    """The images that a repair may learn from; suspects of the proof part are left out.

    Of more than `MOST`, the most conspicuous suspects and evenly spread trusted images are read.
    """
    from guard.ml.accused import Accused
    from guard.ml.cleanset import Labelled

    taught = _surest([one for one in suspects if not one.proof], _most(train))
    places = np.asarray([one.index for one in taught], np.int64)
    classes = [-1 if one.estimated is None else one.estimated for one in taught]
    some = np.asarray(sorted({*trusted} - {one.index for one in suspects}), np.int64)
    if len(some) > _most(train):
        some = some[np.linspace(0, len(some) - 1, _most(train)).round().astype(np.int64)]
    labels = np.asarray([one.label for one in taught], np.int64)
    given = Labelled.from_arrays(train.rows(places), labels)
    return Accused(
        suspects=given,
        relabelled=given.labels.new_tensor(classes),
        trusted=Labelled.from_arrays(train.rows(some), train.labels[some]),
    )


def proof_images(train: "TrainingSet", suspects: Sequence[Suspect]) -> Proof:
    """The suspects of the proof part whose estimated class is known and not their label.

    Clean-label poison is not among them: its label is the true class, and a model that gives it
    obeys nothing.
    """
    from guard.ml.cleanset import Labelled

    dirty = [one for one in suspects if one.proof and one.estimated not in (None, one.label)]
    kept = _surest(dirty, _most(train))
    places = np.asarray([one.index for one in kept], np.int64)
    labels = np.asarray([one.label for one in kept], np.int64)
    return Proof(Labelled.from_arrays(train.rows(places), labels), tuple(one.fdr for one in kept))


def by_label(labels: Sequence[int]) -> tuple[dict[Target, list[int]], int]:
    """Places of proof images by label; a label with fewer than `LEAST` shares a group with others.

    Returns:
        The groups (the shared one is called all-to-all), and how many images are in none, since
        even together they are too few.
    """
    found: dict[Target, list[int]] = defaultdict(list)
    for place, label in enumerate(labels):
        found[label].append(place)
    groups = {label: places for label, places in sorted(found.items()) if len(places) >= LEAST}
    rest = sorted(set(range(len(labels))).difference(*groups.values()))
    if len(rest) >= LEAST:
        return {**groups, str(Family.ALL_TO_ALL): rest}, 0
    return groups, len(rest)


def packed(images: AccusedImages) -> bytes:
    """The images as bytes for another process; `unpacked` reads them."""
    taught, proof = images.taught, images.proof
    arrays: dict[str, Any] = {
        "suspects": taught.suspects.images,
        "suspect_labels": taught.suspects.labels,
        "relabelled": taught.relabelled,
        "trusted": taught.trusted.images,
        "trusted_labels": taught.trusted.labels,
        "proof": proof.images.images,
        "proof_labels": proof.images.labels,
    }
    about = [
        {"target": one.target, "digest": one.digest, "natural": one.natural, "budget": one.budget}
        for one in images.moments
    ]
    stored = {name: tensor.numpy() for name, tensor in arrays.items()}
    stored |= {
        f"moment{place}": np.frombuffer(one.data, np.uint8)
        for place, one in enumerate(images.moments)
    }
    stored["fdr"] = np.asarray(proof.fdr, np.float64)
    stored["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, **stored)
    return out.getvalue()


def unpacked(data: bytes) -> AccusedImages:
    """The inverse of `packed`.

    Raises:
        InputError: these are other bytes.
    """
    from guard.ml.accused import Accused
    from guard.ml.cleanset import Labelled

    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            read = {name: stored[name] for name in stored.files}
        about = json.loads(read["about"].tobytes())
        suspects = Labelled.from_arrays(read["suspects"], read["suspect_labels"])
        return AccusedImages(
            Accused(
                suspects=suspects,
                relabelled=suspects.labels.new_tensor(read["relabelled"].tolist()),
                trusted=Labelled.from_arrays(read["trusted"], read["trusted_labels"]),
            ),
            Proof(
                Labelled.from_arrays(read["proof"], read["proof_labels"]),
                tuple(read["fdr"].tolist()),
            ),
            tuple(
                Replay(**one, data=read[f"moment{place}"].tobytes())
                for place, one in enumerate(about)
            ),
        )
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise InputError(
            "The accused training images cannot be read; sift the training set again.",
            code="accused_unreadable",
        ) from error


def shown(data: bytes) -> list[TrainingImage]:
    """A few of the images that `packed` stored: accused ones, and others of the same labels.

    Raises:
        InputError: as `unpacked`.
    """
    taught = unpacked(data).taught
    labels, looks = taught.suspects.labels.tolist(), taught.relabelled.tolist()
    found = [
        TrainingImage(
            image=taught.suspects.images[place].numpy(),
            label=labels[place],
            accused=True,
            looks=None if looks[place] < 0 else looks[place],
        )
        for place in _spread(range(len(labels)), MOST_SHOWN)
    ]
    wanted = {one.label for one in found}
    beside = [place for place, one in enumerate(taught.trusted.labels.tolist()) if one in wanted]
    return found + [
        TrainingImage(
            image=taught.trusted.images[place].numpy(),
            label=int(taught.trusted.labels[place]),
            accused=False,
        )
        for place in _spread(beside, MOST_BESIDE)
    ]


def _spread(places: Sequence[int], most: int) -> list[int]:
    if len(places) <= most:
        return list(places)
    return [places[place] for place in np.linspace(0, len(places) - 1, most).round().astype(int)]


def _most(train: "TrainingSet") -> int:
    facts = train.facts
    return max(1, min(MOST, MOST_BYTES // (facts.channels * facts.height * facts.width)))


def _surest(suspects: Sequence[Suspect], most: int) -> list[Suspect]:
    """The `most` suspects with the smallest estimated share of clean ones, by place in the set."""
    chosen = sorted(suspects, key=lambda one: (one.fdr, one.index))[:most]
    return sorted(chosen, key=lambda one: one.index)
