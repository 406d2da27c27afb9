"""What `decide` may read about one artifact."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from guard.core.evidence import Accuracy, AnyCleanSet, Evidence, GraphQuality
from guard.core.purification import PurificationFacts
from guard.core.retraining import RetrainingFacts
from guard.core.waivers import Waiver


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that a decision about one artifact may read.

    `versions` holds the methods' present versions, `parameters` all parameters that they run with
    under this policy; for a method without an entry there, only the parameters that the policy sets
    are compared. `accuracy` is that of an image model, `quality` that of a text-to-graph model.
    `architecture` is the manifest's; where it is None, no calibration applies.
    `waivers` were approved and have not ended; whether they hold here is the policy's to say.
    `sifted`: the training set of the model, or of its parent, was sifted. `retraining` is how a
    network was trained anew; None for all others. `assumed` is what the upload's `config.json` left
    out, as `Manifest.assumed`. `grey`: the clean set's three equal channels were read as one.
    `unrepaired`: copies were made though no trigger is proven, and none of them passed.
    """

    artifact: str
    cleanset: AnyCleanSet
    evidence: tuple[Evidence, ...]
    accuracy: Accuracy | None
    quality: GraphQuality | None = None
    versions: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    purification: PurificationFacts | None = None
    architecture: str | None = None
    waivers: tuple[Waiver, ...] = ()
    sifted: bool = False
    retraining: RetrainingFacts | None = None
    assumed: tuple[str, ...] = ()
    grey: bool = False
    unrepaired: bool = False
