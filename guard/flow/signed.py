"""What a stored verdict says, by its signed statement and never by the row's columns."""

from collections.abc import Mapping
from typing import Any

from guard.attest import dsse
from guard.attest.views import VerdictView, read_verdict


def signed(envelope: Mapping[str, Any]) -> VerdictView:
    """The verdict in a stored envelope; its signature is for `attest.gate` and `verify` to check.

    Raises:
        IntegrityMismatch: the envelope holds no verdict of the guard's.
    """
    return read_verdict(dsse.payload(envelope))
