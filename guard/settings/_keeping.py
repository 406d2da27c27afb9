"""How long rows are kept that nothing reads any more."""

from dataclasses import dataclass

from guard.settings._row import row


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How long rows are kept that nothing reads any more."""

    keep_sent_hours: float = row(
        24.0, "how long messages are kept that were sent", unit="hours", low=0.01
    )
    keep_ended_days: float = row(
        30.0,
        "how long ended sessions, what a sign-on gave, answered orders, canaries and notices that "
        "led nowhere are kept; evidence, verdicts, acts and alarms stay",
        unit="days",
        low=1,
    )
