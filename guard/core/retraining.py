"""What is known of a network that the guard trained anew: stored, reported, and JSON-ready."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guard.core.evidence import Accuracy
from guard.core.plain import ADDED
from guard.core.purification import OnSuspects


@dataclass(frozen=True, kw_only=True)
class RetrainingFacts:
    """How a network was trained anew, and how it compares with the one that it replaces.

    `parent` is that network's digest, and `acc_before` its accuracy on the clean set's hold-out;
    empty and None where there is none. `training_set` and `cleanset` are digests, `request` that of
    all that the training depended on. `suspects` and `proof` count the images that the sift
    accused, in its two parts, `trusted` those that it trusted. `numbers` are the method's own.
    `seconds` are those of the process that finished the training. `on_proof` is how the network
    that is replaced (`before`) and the new one (`after`) answer accused images of the proof part;
    `unproved` gives reasons, a sentence each, why some or all of them prove nothing.
    """

    method: str
    version: int
    parameters: Mapping[str, Any]
    request: str
    parent: str
    training_set: str
    cleanset: str
    images: int
    suspects: int
    proof: int
    trusted: int
    acc_before: Accuracy | None
    acc_after: Accuracy
    seconds: float
    seed: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    on_proof: tuple[OnSuspects, ...] = field(default=(), metadata=ADDED)
    unproved: tuple[str, ...] = field(default=(), metadata=ADDED)
