"""Growth is measured from now on, whatever the process had before."""

import torch

from benchmarks.memory import Peak

MIB = 1 << 18  # float32 values


def test_what_was_taken_and_freed_before_does_not_count() -> None:
    large = torch.ones(300 * MIB)
    del large

    with Peak() as peak:
        kept = torch.ones(50 * MIB)
        del kept

    assert 45 <= peak.mib <= 100
