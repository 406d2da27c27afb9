"""The kinds of summaries of a verdict that the guard signs for other tools."""

from enum import StrEnum


class Summary(StrEnum):
    """What a summary is, by its usual short name."""

    VSA = "vsa"  # SLSA's verification summary attestation
    SVR = "svr"  # in-toto's simple verification result
