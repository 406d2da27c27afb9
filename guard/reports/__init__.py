"""A scan's outcome as one value, and the forms people read it in: JSON and an HTML page."""

from guard.reports.report import Answered, Demonstration, RecoveredTrigger, Report

__all__ = ["Answered", "Demonstration", "RecoveredTrigger", "Report"]
