"""Check an installation, part by part, and say what to mend.

Nothing is changed but for probes that are removed again. A part that does not answer costs its
check a bounded time, and what fails in a check is its finding.
"""

from guard.doctor._check import Check, Finding, Options, State
from guard.doctor._run import CHECKS, diagnose

__all__ = ["CHECKS", "Check", "Finding", "Options", "State", "diagnose"]
