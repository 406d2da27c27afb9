"""Evidence to decision: pure functions, no clock, no SQL, no torch."""

from guard.policy.calibration import Calibration
from guard.policy.case import Case
from guard.policy.decide import Decision, decide, settled
from guard.policy.known_gaps import known_gaps
from guard.policy.load import load_calibration, load_policy
from guard.policy.rules import (
    AccuracyRule,
    CalibrationRule,
    CleanSetRule,
    CombinationRule,
    DefenseRule,
    DetectorRule,
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
    "Policy",
    "ProofRule",
    "TrainingSetRule",
    "decide",
    "known_gaps",
    "load_calibration",
    "load_policy",
    "settled",
]
