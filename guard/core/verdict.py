"""VerdictFacts: what is known about an artifact when a verdict is given, as one value.

The policy makes it; the signed statement, the report, the API and the pages read it. One field is
one fact: its JSON key, whether older statements lack it, and its type stand here and nowhere else
(`guard.core.plain`), and the published JSON Schemas are made from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from guard.core.evidence import AsrEstimate, Target
from guard.core.modality import Modality
from guard.core.plain import ADDED, LEFT_OUT, Digest, KnownGaps
from guard.core.purification import RepairSummary
from guard.core.sift import SiftedSet
from guard.core.states import GateMode, Verdict, WouldBe
from guard.core.waivers import Waiver


@dataclass(frozen=True, kw_only=True)
class Gated:
    """The gate's mode where it does not enforce, and what it would have done if it did."""

    mode: GateMode
    would_be: WouldBe

    @property
    def let_through(self) -> bool:
        """Whether the model passes only because the gate does no more than warn."""
        return self.mode is GateMode.WARN and self.would_be is not WouldBe.PUBLISHED

    @property
    def sentence(self) -> str:
        """What a reader must know."""
        if not self.let_through:
            return "The gate only warns (gate.mode); this model passes an enforcing gate as well."
        return (
            "The gate only warns (gate.mode): an enforcing gate refuses this model "
            f"({self.would_be})."
        )


@dataclass(frozen=True, kw_only=True)
class VerdictFacts:
    """A verdict with its reasons, and all that it rests on.

    Attributes:
        score: how suspicious, 0..1; with a `calibration`, the probability of a backdoor. None where
            nothing was measured.
        target: the accused class.
        asr: the attack success rate that a reader should see first: of an accused class's trigger,
            or of a parent's trigger on its repaired copy; None where nothing is accused.
        natural_trigger: where no class is accused, the most unusual of the triggers that a search
            finds on every model; no sign of a backdoor, however high its rate.
        asr_upper: a bound on the rates of all accused triggers at once (of a purified model, of its
            parent's triggers); None where there are none.
        calibration: digest of the calibration file that the score comes from.
        coverage: the trigger families that a method looked for.
        known_gaps: what was measured for the policy (`guard.policy.known_gaps`); None where no
            method looked.
        evidence: keys of the evidence that was read.
        parent: digest of the artifact that this one was repaired from, or trained anew for.
        purification: how that was done; None for an upload.
        vetted_dtype: the dtype that the weights had when they were vetted; another one rounds them
            to a model that nobody looked at. None where no method looked.
        plug_ins: SHA-256 of each plug-in file from outside that was in force, by its path in the
            folder; empty where there were none, None where no method looked.
        contracts: the contract that each of these is written for, as `MAJOR.MINOR`; None, and left
            out of the statement, where there are none.
        waivers: the findings that two people waived and that therefore did not count; left out of
            the statement where there are none.
        gate: the gate's mode and what it would have done otherwise; None where it enforces, and
            for what it blocks in any mode.
        battery: a commitment to the secret from which the changes were drawn that a method tried;
            None where no method draws any. Whoever is shown the secret later can check it.
        training_set: the sift of the training set; None where the model names none.
        modality: what kind of model it is; left out of the statement for images.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    score: float | None = None
    target: Target = None
    asr: AsrEstimate | None = None
    natural_trigger: AsrEstimate | None = field(default=None, metadata=ADDED)
    asr_upper: float | None = field(default=None, metadata=ADDED)
    calibration: Digest | None = field(default=None, metadata=ADDED)
    coverage: tuple[str, ...] = ()
    known_gaps: KnownGaps | None = field(default=None, metadata=ADDED)
    evidence: tuple[str, ...] = ()
    parent: Digest | None = None
    purification: RepairSummary | None = field(default=None, metadata=ADDED)
    vetted_dtype: str | None = field(default=None, metadata=ADDED)
    plug_ins: Mapping[str, str] | None = field(default=None, metadata=ADDED)
    contracts: Mapping[str, str] | None = field(default=None, metadata=LEFT_OUT)
    waivers: tuple[Waiver, ...] = field(default=(), metadata=LEFT_OUT)
    gate: Gated | None = field(default=None, metadata=ADDED)
    battery: Digest | None = field(default=None, metadata=LEFT_OUT)
    training_set: SiftedSet | None = field(default=None, metadata=LEFT_OUT)
    modality: Modality = field(default=Modality.IMAGES, metadata=LEFT_OUT)

    def natural_apart(self) -> "VerdictFacts":
        """The same facts with a natural trigger's rate in its own field, never in `asr`.

        Statements of the first version have it in `asr`, marked by a `natural` rate equal to its
        estimate; of a repaired model that field was always the parent's trigger.
        """
        asr = self.asr
        if (
            asr is None
            or self.target is not None
            or self.verdict is Verdict.PURIFIED
            or self.purification is not None
            or asr.natural != asr.estimate
        ):
            return self
        return replace(self, asr=None, natural_trigger=asr)

    def reviewed(self, verdict: Verdict, reason: str) -> "VerdictFacts":
        """The same facts under a reviewer's verdict: a review changes no fact."""
        return replace(self, verdict=verdict, reasons=(reason,))
