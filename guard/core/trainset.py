"""Training sets as plain data: where one lies, what was read of it, which images are suspects."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class TrainingSetSource:
    """Which set taught a model, as its uploader or an operator names it.

    `uri` is `s3://bucket/prefix/`, a path, or a stored name. `digest`, where it is given, must be
    that of the set that is found there. `class_names` are in the order of the model's classes.
    """

    uri: str
    digest: str | None = None
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingSetFacts:
    """What was read of a training set.

    `origin` is the digest of the sorted list of all its images (source, size, hash, label), and
    `digest` that of what was read, with the labels as they are used: the same, unless a sample was
    taken or the classes have another order in the model. `per_class` counts
    the images that could be read; `skipped` counts broken ones, `overlap` those that are also in
    the clean set, exactly or nearly. `total` is larger than `images` + `skipped` where a sample was
    taken. `duplicates` counts images that equal an earlier one, `conflicts` those that have another
    label elsewhere in the set. `classes_by` says how the set's classes became the model's ("name"
    or "order"; empty where no model was asked), `faults` why the first few images were skipped.
    """

    uri: str
    digest: str
    images: int
    total: int
    channels: int
    height: int
    width: int
    class_names: tuple[str, ...]
    per_class: tuple[int, ...]
    skipped: int = 0
    overlap: int = 0
    duplicates: int = 0
    conflicts: int = 0
    classes_by: str = ""
    faults: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One training image that a sift accuses.

    `index` is its place in the training set and `source` its name there. `estimated` is the class
    that the reference network gives it, None where it is unsure. `fdr` is the estimated share of
    clean images among the suspects that are at least as conspicuous, in 0..1. `proof` is True for
    the part, chosen by hash, that no repair may learn from.
    """

    index: int
    label: int
    estimated: int | None
    fdr: float
    source: str
    proof: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)
