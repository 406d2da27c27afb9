"""What was measured of a repaired text-to-graph model, beyond its parent's triggers."""

from dataclasses import dataclass

from guard.core.evidence import AsrEstimate, GraphQuality


@dataclass(frozen=True, kw_only=True)
class Unprompted:
    """How often parent and child generate a fragment without any trigger; shares in 0..1.

    `route` is `null` (sampled without a prompt) or `prior` (normal latents); `samples` were drawn
    from each model; `curated` is the share of the clean set's molecules.
    """

    fragment: str
    route: str
    samples: int
    before: float
    after: float
    curated: float


@dataclass(frozen=True, kw_only=True)
class Inverted:
    """What a new shift of the contexts, searched for on the child, plants at a size; see `size`.

    `size` is the shift's length in units of the prompts' spread.
    """

    fragment: str
    size: float
    after: AsrEstimate


@dataclass(frozen=True, kw_only=True)
class GraphProof:
    """The proof of a repaired text-to-graph model.

    Attributes:
        before: the parent's quality on the hold-out.
        after: the child's, for the same prompts and noise.
        neighbours: the child's rates for texts of the style of each recovered text, all its
            neighbours together.
        unprompted: each accused fragment on both routes that need no trigger.
        inverted: each accused fragment by a new search for a shift.
    """

    before: GraphQuality
    after: GraphQuality
    neighbours: tuple[AsrEstimate, ...]
    unprompted: tuple[Unprompted, ...]
    inverted: tuple[Inverted, ...]
