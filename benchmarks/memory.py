"""Measure the largest resident size of this process from now on, on Linux."""

import ctypes
import gc
from pathlib import Path
from types import TracebackType
from typing import Self


class Peak:
    """`with Peak() as peak: ...`, then `peak.mib` is the peak growth of the process.

    Freed memory is returned to the system first, and the kernel's high-water mark is reset;
    `getrusage` alone would include the peak of importing torch.
    """

    mib = float("nan")

    def __enter__(self) -> Self:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _kib("VmRSS")
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.mib = max(0.0, (_kib("VmHWM") - self._before) / 1024)


def _kib(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise LookupError(f"/proc/self/status has no {key}.")
