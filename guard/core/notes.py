"""ScanNotes: what the stages of a scan leave for each other, beside the scan's own columns."""

from dataclasses import dataclass, field

from guard.core.plain import ADDED, LEFT_OUT
from guard.core.purification import PurificationFacts
from guard.core.retraining import RetrainingFacts
from guard.core.states import Verdict


@dataclass(frozen=True, kw_only=True)
class HandedOver:
    """A verdict that an earlier stage reached; `then` names what follows once it is signed."""

    verdict: Verdict
    reasons: tuple[str, ...]
    then: str = field(default="", metadata=ADDED)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt in a tournament, with its result.

    `after` names, in order, the defenses that had already repaired the model that it starts from.
    A candidate has a `digest` and, in the service, a scan of its own (`child`); where none was
    made, `failed` gives the reason as a sentence. `verdict` is None until there is one.
    """

    defense: str
    after: tuple[str, ...] = field(default=(), metadata=LEFT_OUT)
    child: str | None = field(default=None, metadata=LEFT_OUT)
    digest: str | None = field(default=None, metadata=LEFT_OUT)
    facts: PurificationFacts | None = field(default=None, metadata=LEFT_OUT)
    verdict: Verdict | None = field(default=None, metadata=LEFT_OUT)
    failed: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class Rescan:
    """Why an artifact is scanned again; `of` is the id of its first scan.

    `extension`: nothing is scanned, the verdict in force was only extended. `unseen`: nobody has
    checked yet whether all is there that a decision needs; the deciding stage does.
    """

    of: str
    why: str
    extension: bool = field(default=False, metadata=LEFT_OUT)
    unseen: bool = field(default=False, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class ScanProgress:
    """How far the detectors of a running scan are, by planned seconds.

    `done` is in 0..1, `note` names what runs, `seconds_left` is None where nobody knows.
    """

    done: float
    note: str = ""
    seconds_left: float | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class ScanNotes:
    """All notes on one scan.

    Attributes:
        outcome: the verdict that an earlier stage handed to the deciding one to sign.
        smoke: digest of the smoke samples that a publisher sends to the serving system.
        purification: how the artifact was repaired from its parent; None for an upload.
        retraining: how the artifact was trained anew; None for an upload and for a repair.
        candidates: the tournament of an upload that is repaired, in the order tried.
        rescan: what this scan repeats; None for the first scan of an upload or a candidate.
        reuses: id of the verdict in force that this scan may rest on, still to be checked.
        canary: digest of the canary kit that the detectors had passed when they last looked.
        canary_wait: since when the scan waits for a worker with a passing canary (ISO 8601).
        not_published: why an artifact that may be served was not given to serving.
        cleanset_wish: the clean set that the manifest asks for, where the operator's mapping gave
            another one.
        accused: digest of the blob with the accused training images (`guard.vetting.accused`), from
            which a repair learns and on which it is proved; None where none were accused.
        blind: a copy is repaired though no trigger of the upload is proven.
        unrepaired: no such copy passed, and the policy judges the upload by its other rules.
        sketch: of an upload's weights (`guard.core.weight_sketch`), to know nearly the same again.
        trace: id of the trace that it is part of (`guard.core.tracing`); None: its own id.
        progress: how far its detectors are; the end of the stage takes it away.
    """

    outcome: HandedOver | None = field(default=None, metadata=LEFT_OUT)
    smoke: str | None = field(default=None, metadata=LEFT_OUT)
    purification: PurificationFacts | None = field(default=None, metadata=LEFT_OUT)
    retraining: RetrainingFacts | None = field(default=None, metadata=LEFT_OUT)
    candidates: tuple[Attempt, ...] = field(default=(), metadata=LEFT_OUT)
    rescan: Rescan | None = field(default=None, metadata=LEFT_OUT)
    reuses: str | None = field(default=None, metadata=LEFT_OUT)
    canary: str | None = field(default=None, metadata=LEFT_OUT)
    canary_wait: str | None = field(default=None, metadata=LEFT_OUT)
    not_published: str | None = field(default=None, metadata=LEFT_OUT)
    cleanset_wish: str | None = field(default=None, metadata=LEFT_OUT)
    accused: str | None = field(default=None, metadata=LEFT_OUT)
    blind: bool = field(default=False, metadata=LEFT_OUT)
    unrepaired: bool = field(default=False, metadata=LEFT_OUT)
    sketch: str | None = field(default=None, metadata=LEFT_OUT)
    trace: str | None = field(default=None, metadata=LEFT_OUT)
    progress: ScanProgress | None = field(default=None, metadata=LEFT_OUT)
