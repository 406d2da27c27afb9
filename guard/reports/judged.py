"""One model's verdict as a pipeline understands it: it passes, it is refused, or nobody knows."""

from dataclasses import dataclass
from enum import StrEnum

from guard.core.states import Verdict, exit_code
from guard.core.text import printable

#: The exit codes of models that were judged and refused; every other one but 0 is no judgement.
_REFUSED = frozenset({exit_code(Verdict.REJECTED), exit_code(Verdict.HELD)})
EXPIRED, PENDING = "expired", "pending"  # beside the verdicts' own names
#: What each verdict means to whoever reads about it in another tool, and what to do.
HELP: dict[str, tuple[str, str]] = {
    Verdict.CLEARED: (
        "The policy cleared the model.",
        (
            "Nothing to do. It is cleared under this policy, by these methods, for the trigger "
            "families in `coverage`; that is no proof that it has no backdoor."
        ),
    ),
    Verdict.PURIFIED: (
        "The model is a repaired copy that the policy passed.",
        "Serve this copy, never the upload that it was made from.",
    ),
    Verdict.REJECTED: (
        "The policy rejected the model.",
        (
            "Do not serve it. Repair it (`guard purify`), or train it anew on data that was sifted "
            "(`guard sift`, `guard retrain`)."
        ),
    ),
    Verdict.HELD: (
        "A person must look at the model.",
        "Do not serve it yet. A reviewer reads the report and decides: `guard review`.",
    ),
    Verdict.UNVETTABLE: (
        "The guard cannot vet this file.",
        "The reason names what to upload instead, such as safetensors with config.json.",
    ),
    Verdict.INCONCLUSIVE: (
        "Something that the policy requires could not run.",
        "Nobody looked, so that nothing is known. Mend what the reason names and scan again.",
    ),
    EXPIRED: (
        "The verdict on the model has expired.",
        "Nothing vouches for the model any more. Scan it again: `guard rescan`.",
    ),
    PENDING: (
        "The model has no verdict.",
        "Its scan still runs, or failed: `guard status --watch`, `guard dead-letters list`.",
    ),
}


class Ruling(StrEnum):
    """What a pipeline makes of a model."""

    PASSED = "passed"
    FAILED = "failed"  # judged, and not to be served
    UNKNOWN = "unknown"  # nobody could look, or nobody has; never a pass


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is known about one model.

    Attributes:
        verdict: None where there is none (yet).
        code: the exit code of `guard` about it.
        where: the file's path as the caller named it; empty for a model of the service.
    """

    name: str
    digest: str
    verdict: Verdict | None
    code: int
    reasons: tuple[str, ...] = ()
    where: str = ""

    @property
    def key(self) -> str:
        """The verdict's name, or `expired` or `pending`."""
        if self.verdict is None:
            return PENDING
        passes = exit_code(self.verdict) == 0
        return EXPIRED if passes and self.code else str(self.verdict)

    @property
    def ruling(self) -> Ruling:
        """Whether it passes; by its exit code, so that all formats agree with the command."""
        if self.code == 0 and self.verdict is not None:
            return Ruling.PASSED
        return Ruling.FAILED if self.code in _REFUSED else Ruling.UNKNOWN

    @property
    def message(self) -> str:
        """The verdict with its reasons as text that controls nothing."""
        return " ".join((HELP[self.key][0], *(printable(reason) for reason in self.reasons)))
