"""Evidence to decision: pure functions, no clock, no SQL, no torch."""

from guard.policy.abstain import unconfigured
from guard.policy.calibration import Calibration
from guard.policy.case import Case
from guard.policy.decide import Decision, decide, settled
from guard.policy.known_gaps import known_gaps
from guard.policy.load import default_policy, load_calibration, load_policy
from guard.policy.named import NamedPolicies
from guard.policy.rules import (
    AccuracyRule,
    CalibrationRule,
    CleanSetRule,
    CombinationRule,
    DefenseRule,
    DetectorRule,
    GraphRule,
    Policy,
    ProofRule,
    TrainingSetRule,
)

__all__ = [
    "AccuracyRule",
    "Calibration",
    "CalibrationRule",
    "Case",
    "CleanSetRule",
    "CombinationRule",
    "Decision",
    "DefenseRule",
    "DetectorRule",
    "GraphRule",
    "NamedPolicies",
    "Policy",
    "ProofRule",
    "TrainingSetRule",
    "decide",
    "default_policy",
    "known_gaps",
    "load_calibration",
    "load_policy",
    "settled",
    "unconfigured",
]
