"""How long `guard --help` takes, compared with a bare Python start in the same run."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.record import write

RUNS = 15


def main() -> None:
    """Measure both, print the ratio, write a record."""
    guard = [str(Path(sys.executable).with_name("guard")), "--help"]
    python = [sys.executable, "-c", "pass"]
    ours, bare = [], []
    for _ in range(RUNS):  # alternating, so that a busy moment affects both
        ours.append(_seconds(guard))
        bare.append(_seconds(python))
    result = {
        "guard_help_median_s": round(statistics.median(ours), 4),
        "python_median_s": round(statistics.median(bare), 4),
        "ratio": round(statistics.median(ours) / statistics.median(bare), 2),
        "runs": RUNS,
        "aim_s": 0.3,
    }
    print(result)
    write(
        "cli",
        result,
        f"# `guard --help`\n\n{__doc__}\nMedian of {RUNS} alternating runs; aim: under 0.3 s.",
    )


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
