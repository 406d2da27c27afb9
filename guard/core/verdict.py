"""VerdictFacts: what is known about an artifact when a verdict is given, as one value.

The policy makes it; the signed statement, the report, the API and the pages read it. One field is
one fact: its JSON key, whether older statements lack it, and its type stand here and nowhere else
(`guard.core.plain`), and the published JSON Schemas are made from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from guard.core.evidence import AsrEstimate, Target
from guard.core.plain import ADDED, LEFT_OUT, Digest, KnownGaps
from guard.core.purification import RepairSummary
from guard.core.sift import SiftedSet
from guard.core.states import Verdict


@dataclass(frozen=True, kw_only=True)
class VerdictFacts:
    """A verdict with its reasons, and all that it rests on.

    Attributes:
        score: how suspicious, 0..1; with a `calibration`, the probability of a backdoor. None where
            nothing was measured.
        target: the accused class.
        asr: the attack success rate that a reader should see first.
        asr_upper: a bound on the rates of all accused triggers at once (of a purified model, of its
            parent's triggers); None where there are none.
        calibration: digest of the calibration file that the score comes from.
        coverage: the trigger families that a method looked for.
        known_gaps: what was measured for the policy (`guard.policy.known_gaps`); None where no
            method looked.
        evidence: keys of the evidence that was read.
        parent: digest of the artifact that this one was repaired from.
        purification: how that was done; None for an upload.
        vetted_dtype: the dtype that the weights had when they were vetted; another one rounds them
            to a model that nobody looked at. None where no method looked.
        plug_ins: SHA-256 of each plug-in file from outside that was in force, by its path in the
            folder; empty where there were none, None where no method looked.
        training_set: the sift of the training set; None where the model names none.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    score: float | None = None
    target: Target = None
    asr: AsrEstimate | None = None
    asr_upper: float | None = field(default=None, metadata=ADDED)
    calibration: Digest | None = field(default=None, metadata=ADDED)
    coverage: tuple[str, ...] = ()
    known_gaps: KnownGaps | None = field(default=None, metadata=ADDED)
    evidence: tuple[str, ...] = ()
    parent: Digest | None = None
    purification: RepairSummary | None = field(default=None, metadata=ADDED)
    vetted_dtype: str | None = field(default=None, metadata=ADDED)
    plug_ins: Mapping[str, str] | None = field(default=None, metadata=ADDED)
    training_set: SiftedSet | None = field(default=None, metadata=LEFT_OUT)

    def reviewed(self, verdict: Verdict, reason: str) -> "VerdictFacts":
        """The same facts under a reviewer's verdict: a review changes no fact."""
        return replace(self, verdict=verdict, reasons=(reason,))
