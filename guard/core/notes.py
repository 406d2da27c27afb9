"""ScanNotes: what the stages of a scan leave for each other, beside the scan's own columns."""

from dataclasses import dataclass, field

from guard.core.plain import ADDED, LEFT_OUT
from guard.core.purification import PurificationFacts
from guard.core.states import Verdict


@dataclass(frozen=True, kw_only=True)
class HandedOver:
    """A verdict that a stage before the deciding one came to; `then` is what follows it."""

    verdict: Verdict
    reasons: tuple[str, ...]
    then: str = field(default="", metadata=ADDED)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try of a tournament, and what became of it.

    `after` names the defenses that had repaired its start, in order. One that was made has a
    `digest` and, in the service, a scan of its own (`child`); one that was not has a sentence in
    `failed`. `verdict` is None while there is none.
    """

    defense: str
    after: tuple[str, ...] = field(default=(), metadata=LEFT_OUT)
    child: str | None = field(default=None, metadata=LEFT_OUT)
    digest: str | None = field(default=None, metadata=LEFT_OUT)
    facts: PurificationFacts | None = field(default=None, metadata=LEFT_OUT)
    verdict: Verdict | None = field(default=None, metadata=LEFT_OUT)
    failed: str | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class ScanNotes:
    """All notes on one scan.

    Attributes:
        outcome: what an earlier stage handed over to the deciding one, for it to sign.
        smoke: digest of the smoke samples that a publisher asks the serving system.
        purification: how the artifact was made from its parent's; None for an upload.
        candidates: the tournament of a rejected upload, in the order tried.
        canary_wait: since when the scan waits for a worker with a passing canary (ISO 8601).
    """

    outcome: HandedOver | None = field(default=None, metadata=LEFT_OUT)
    smoke: str | None = field(default=None, metadata=LEFT_OUT)
    purification: PurificationFacts | None = field(default=None, metadata=LEFT_OUT)
    candidates: tuple[Attempt, ...] = field(default=(), metadata=LEFT_OUT)
    canary_wait: str | None = field(default=None, metadata=LEFT_OUT)
