"""Scan states and verdicts: two independent axes.

The values are the strings that the database stores.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum

from guard.core.modality import Modality


class ScanState(StrEnum):
    """Where the work on one upload stands; it implies nothing about the model."""

    QUEUED = "queued"  # recorded, nobody works on it
    FETCHING = "fetching"  # bytes are streamed into a blob
    INSPECTING = "inspecting"  # formats look at the bytes, the canonical file is written
    DETECTING = "detecting"  # detectors run
    DECIDING = "deciding"  # the policy reads the evidence, the verdict is signed
    PURIFYING = "purifying"  # defenses run, candidates are vetted
    PUBLISHING = "publishing"  # on the way to serving
    DONE = "done"  # there is a verdict
    FAILED = "failed"  # the guard gave up; a person reads `error`


#: Each state's legal next states. A re-delivered task may re-enter its own state.
NEXT_STATES: dict[ScanState, frozenset[ScanState]] = {
    ScanState.QUEUED: frozenset(
        {ScanState.FETCHING, ScanState.INSPECTING, ScanState.DONE, ScanState.FAILED}
    ),
    ScanState.FETCHING: frozenset({ScanState.INSPECTING, ScanState.DONE, ScanState.FAILED}),
    ScanState.INSPECTING: frozenset(
        {ScanState.DETECTING, ScanState.DECIDING, ScanState.DONE, ScanState.FAILED}
    ),
    ScanState.DETECTING: frozenset({ScanState.DECIDING, ScanState.FAILED}),
    ScanState.DECIDING: frozenset(
        {
            ScanState.DETECTING,  # the verdict that was to be reused does not hold any more
            ScanState.PURIFYING,
            ScanState.PUBLISHING,
            ScanState.DONE,
            ScanState.FAILED,
        }
    ),
    ScanState.PURIFYING: frozenset(
        {ScanState.DECIDING, ScanState.PUBLISHING, ScanState.DONE, ScanState.FAILED}
    ),
    ScanState.PUBLISHING: frozenset({ScanState.DONE, ScanState.FAILED}),
    # A reviewer's approval publishes a finished scan.
    ScanState.DONE: frozenset({ScanState.PUBLISHING}),
    # A person requests another try: from the start, or of a stage behind the decision.
    ScanState.FAILED: frozenset({ScanState.QUEUED, ScanState.PURIFYING, ScanState.PUBLISHING}),
}


def may_move(old: ScanState, new: ScanState) -> bool:
    """Whether a scan may go from `old` to `new`.

    Staying is always legal, since tasks may arrive twice.
    """
    return old == new or new in NEXT_STATES[old]


class Verdict(StrEnum):
    """The guard's decision on one artifact under one policy; never "clean" or "safe"."""

    CLEARED = "cleared"
    PURIFIED = "purified"
    REJECTED = "rejected"
    HELD = "held"  # a person must look
    # Not a model that the guard can vet; the reason names what to upload instead.
    UNVETTABLE = "unvettable"
    INCONCLUSIVE = "inconclusive"  # something required could not run


#: The only verdicts under which an artifact may be served; `attest.gate` is the only reader.
SERVABLE_VERDICTS = frozenset({Verdict.CLEARED, Verdict.PURIFIED})
#: Verdicts that say nothing about the model: they take no other verdict's place.
UNDECIDED = frozenset({Verdict.INCONCLUSIVE})


class GateMode(StrEnum):
    """What the gate does with a verdict that does not permit serving."""

    ENFORCE = "enforce"  # it refuses
    WARN = "warn"  # it lets the model through and says what it would have done


class WouldBe(StrEnum):
    """What an enforcing gate would have made of a model: published, or why it would not."""

    PUBLISHED = "published"
    REJECTED = "rejected"
    HELD = "held"
    INCONCLUSIVE = "inconclusive"
    EXPIRED = "expired"


#: `guard` exit codes by verdict (0 ok, 1 blocked, 2 error, 3 nothing vettable, 4 usage, 5 review, 6
#: integrity).
EXIT_CODES: dict[Verdict, int] = {
    Verdict.CLEARED: 0,
    Verdict.PURIFIED: 0,
    Verdict.REJECTED: 1,
    Verdict.INCONCLUSIVE: 2,
    Verdict.UNVETTABLE: 3,
    Verdict.HELD: 5,
}

#: Exit code of a pass that has expired: nothing vouches for the model any more.
EXPIRED = 2


def exit_code(verdict: Verdict, *, expired: bool = False) -> int:
    """The number with which `guard` ends; a pass that has expired is none."""
    return EXIT_CODES[verdict] or (EXPIRED if expired else 0)


class Family(StrEnum):
    """The families of triggers that methods look for; a verdict's coverage is a set of these.

    `FAMILIES` sorts them by modality.
    """

    PATCH = "patch"
    BLEND = "blend"
    ADDITIVE = "additive"
    WARP = "warp"
    FILTER = "filter"
    SAMPLE_SPECIFIC = "sample-specific"
    ALL_TO_ALL = "all-to-all"
    ALL_TO_ONE = "all-to-one"  # for methods that accuse a class without recovering a trigger
    PROMPT = "prompt"  # a text that plants a fragment in what is generated
    CONTEXT = "context"  # the same in the space of text vectors, with no text recovered
    MOTIF = "motif"  # a fragment that is generated too often, with no trigger at all


#: The families that a model of each modality can have.
FAMILIES: Mapping[Modality, frozenset[Family]] = {
    Modality.GRAPHS: frozenset({Family.PROMPT, Family.CONTEXT, Family.MOTIF}),
    Modality.IMAGES: frozenset(Family) - {Family.PROMPT, Family.CONTEXT, Family.MOTIF},
}


def not_covered(coverage: Collection[str], modality: Modality = Modality.IMAGES) -> list[str]:
    """The trigger families of a modality that a verdict with this coverage does not cover."""
    return [
        str(family)
        for family in Family
        if family in FAMILIES[modality] and str(family) not in coverage
    ]
