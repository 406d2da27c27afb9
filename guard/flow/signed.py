"""Read a stored verdict from its signed statement, never from the row's columns."""

from collections.abc import Mapping
from typing import Any

from guard.attest import dsse
from guard.attest.views import VerdictView, read_verdict


def signed(envelope: Mapping[str, Any]) -> VerdictView:
    """The verdict in a stored envelope; `attest.gate` and `verify` check its signature, not this.

    Raises:
        IntegrityMismatch: the envelope does not contain a verdict of the guard.
    """
    return read_verdict(dsse.payload(envelope))
