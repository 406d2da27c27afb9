"""How long a training set of a million rows takes to read, and how much memory.

`python -m benchmarks.bench_trainset [ROWS]` writes a synthetic set (32x32 grey, NumPy archives),
reads it in a fresh process and prints seconds and MiB.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.memory import Peak
from guard.trainsets import overlap, read

ROWS = 1_000_000
SHAPE = (1, 32, 32)
CLASSES = 10
_SHARD = 100_000
_CLEAN = 2_000


def write(folder: Path, rows: int) -> Path:
    """Write `rows` random rows in archives of 100,000 each."""
    draw = np.random.default_rng(0)
    for start in range(0, rows, _SHARD):
        count = min(_SHARD, rows - start)
        images = draw.integers(0, 256, (count, *SHAPE), np.uint8)
        np.savez(folder / f"{start:08}.npz", images=images, labels=np.arange(count) % CLASSES)
    return folder


def measure(rows: int = ROWS, folder: Path | None = None) -> dict[str, float]:
    """Seconds and peak MiB of reading `rows` rows, of one pass and of the overlap.

    Args:
        folder: where the sets are written; None for a temporary folder of the system's.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, "-m", "benchmarks.bench_trainset", "child", place, str(rows)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _child(place: Path, rows: int) -> dict[str, float]:
    source, into = place / "source", place / "into"
    source.mkdir()
    into.mkdir()
    write(source, rows)
    found: dict[str, float] = {"rows": rows}
    with Peak() as peak:
        start = time.perf_counter()
        train = read(source, into)
        found["read_seconds"] = time.perf_counter() - start
    found["read_mib"] = peak.mib
    with Peak() as peak:
        start = time.perf_counter()
        total = sum(int(batch.images[0, 0, 0, 0]) for batch in train.batches())
        found["pass_seconds"] = time.perf_counter() - start
    found["pass_mib"] = peak.mib
    found["checksum"] = total
    scattered = np.random.default_rng(1).permutation(len(train))[: rows // 10]
    start = time.perf_counter()
    for _batch in train.batches(index=scattered):
        pass
    found["scattered_seconds_per_row"] = (time.perf_counter() - start) / max(1, len(scattered))
    clean = np.random.default_rng(2).integers(0, 256, (_CLEAN, *SHAPE), np.uint8)
    with Peak() as peak:
        start = time.perf_counter()
        found["overlap"] = int(overlap(train, clean).train.sum())
        found["overlap_seconds"] = time.perf_counter() - start
    found["overlap_mib"] = peak.mib
    return found


def main() -> None:
    """Run as the module's docstring says."""
    if sys.argv[1:2] == ["child"]:
        answer = _child(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        answer = measure(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")


if __name__ == "__main__":
    main()
