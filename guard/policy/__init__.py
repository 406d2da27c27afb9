"""Evidence to decision: pure functions, no clock, no SQL, no torch."""

from guard.policy.decide import Case, Decision, decide
from guard.policy.load import load_policy
from guard.policy.rules import AccuracyRule, CleanSetRule, DefenseRule, DetectorRule, Policy

__all__ = [
    "AccuracyRule", "Case", "CleanSetRule", "Decision", "DefenseRule", "DetectorRule", "Policy", "decide",
    "load_policy",
]
