"""The report on a scan as one value, and its forms for readers: JSON and an HTML page."""

from guard.reports.report import Answered, Demonstration, RecoveredTrigger, Report

__all__ = ["Answered", "Demonstration", "RecoveredTrigger", "Report"]
