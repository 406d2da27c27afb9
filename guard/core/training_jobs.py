"""Long jobs on the training set of a registered model: what was asked for, and where one stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from guard.core.plain import Digest
from guard.core.trainset import TrainingSetSource

#: The most seconds that a policy may have one job work; its worker is ended after that.
MAX_BUDGET = 14 * 86400.0


class JobKind(StrEnum):
    """What a job does with the training set."""

    SIFT = "sift"  # look for poison, and report
    RETRAIN = "retrain"  # sift, and train a network anew on what that leaves


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"  # a worker began it; between two workers it waits in this state
    DONE = "done"
    FAILED = "failed"  # `error` says why; nothing came of it
    CANCELLED = "cancelled"  # a person ended it; nothing came of it


#: The states from which a job goes on.
OPEN_STATES = frozenset({JobState.QUEUED, JobState.RUNNING})


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """All that the result of a job depends on, as it was asked for.

    Attributes:
        artifact: digest of the model that the set taught.
        training_set: as it was named, with the digest that it must have.
        cleanset: digest of the clean set.
        rule: the policy's rule for training sets, as plain values.
        method: a retrainer's name; empty for a sift.
        parameters: those of the method that differ from its defaults.
        guard: the release that was asked.
    """

    kind: JobKind
    artifact: Digest
    training_set: TrainingSetSource
    cleanset: Digest
    rule: Mapping[str, Any]
    method: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    guard: str = ""
