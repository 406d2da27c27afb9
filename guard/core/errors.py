"""Every error the guard raises on purpose, in one tree.

GuardError
├── InputError            the caller's input is wrong; the sentence names the fault and the remedy
│   ├── CleanSetError
│   ├── PolicyError
│   ├── TrainingSetError
│   └── UnknownMethod
├── MissingExtra          a library of an optional part is not installed: inconclusive
├── ArtifactRejected      the uploaded bytes are at fault: never retried
│   └── ManifestRejected
├── Unavailable           the world is at fault (network, store, broker): retried later
├── IntegrityMismatch     bytes, signature or serving state differ from what was vetted
├── MethodFailed          a detector or defense broke a promise: recorded as "could not look"
│   ├── OutOfTime
│   └── Cancelled
├── NotServable           the gate refuses; the sentence gives the reason
└── LeaseLost             another worker took this scan over; stop without writing
"""


class GuardError(Exception):
    """Base of all deliberate errors.

    Args:
        sentence: what is wrong and what to do, one sentence, safe to show to a user.
        code: a stable snake_case name of the broken rule; defaults to the class's own.
    """

    code = "guard_error"

    def __init__(self, sentence: str, *, code: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        if code is not None:
            self.code = code


class InputError(GuardError):
    """The caller requested something that cannot be done."""

    code = "input_error"


class CleanSetError(InputError):
    """A clean set is unreadable, too small, mislabelled or of the wrong shape."""

    code = "cleanset_error"


class PolicyError(InputError):
    """A policy file has an unknown key, a bad value or no rules."""

    code = "policy_error"


class TrainingSetError(InputError):
    """A training set is unreadable, changes while it is read, or is not this model's."""

    code = "trainset_error"


class MissingExtra(GuardError):
    """A library of an optional part of the guard is not installed; the sentence names the extra."""

    code = "missing_extra"


class UnknownMethod(InputError):
    """A name that is on no shelf."""

    code = "unknown_method"


class ArtifactRejected(GuardError):
    """A rule of a format is broken; `code` names the rule.

    Never retried: the bytes will not change.
    """

    code = "artifact_rejected"


class ManifestRejected(ArtifactRejected):
    """The `config.json` beside a model is missing, malformed or contradicts the weights."""

    code = "manifest_rejected"


class Unavailable(GuardError):
    """A component did not answer; the same call may go through later."""

    code = "unavailable"


class IntegrityMismatch(GuardError):
    """Bytes, a signature or the serving state differ from what was vetted."""

    code = "integrity_mismatch"


class MethodFailed(GuardError):
    """A method could not keep its contract (non-finite numbers, crash, unusable input)."""

    code = "method_failed"


class OutOfTime(MethodFailed):
    """A method exceeded its time budget."""

    code = "out_of_time"


class Cancelled(MethodFailed):
    """The method was cancelled."""

    code = "cancelled"


class NotServable(GuardError):
    """The gate refuses the artifact."""

    code = "not_servable"


class LeaseLost(GuardError):
    """Another worker holds the scan now, under a newer fencing token.

    Whatever this process was about to write is void.
    """

    code = "lease_lost"
