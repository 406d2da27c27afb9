"""This host: disk, sandbox, device, where traces go."""

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from guard.core.errors import GuardError
from guard.doctor._check import Check, Finding, Ground, failed, ok, unknown, warning
from guard.traces import parsed

GIB = 1 << 30
LEAST_FREE, LOW_SHARE = 2 * GIB, 0.05
GPU_SECONDS = 90.0  # torch alone takes several to import
_LANDLOCK_CREATE = 444
#: What comes with it: 1 files, 2 renames, 3 truncation, 4 TCP, 5 devices, 6 sockets and signals.
GOOD_LANDLOCK = 3
_LOOK = (
    "import torch;"
    "print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '', flush=True)"
)


def disk(ground: Ground) -> Finding:
    """Whether there is room for uploads, work and logs."""
    settings, tight = ground.settings, []
    url = settings.blob_url
    own = [] if url.startswith("s3://") else [Path(url.removeprefix("file://"))]
    for place in dict.fromkeys([settings.data_dir, *own, settings.checkpoint_dir]):
        there = next(path for path in (place, *place.parents) if path.exists())
        free = shutil.disk_usage(there)
        if free.free < LEAST_FREE:
            return failed(
                f"{there} has {free.free / GIB:.1f} GiB left.", "Free space, or move the folder."
            )
        if free.free < LOW_SHARE * free.total:
            tight.append(f"{there} ({free.free / GIB:.1f} GiB)")
    if tight:
        return warning(f"Little space is left: {', '.join(tight)}.", "Free space soon.")
    return ok("There is room on the disks.")


def sandbox(ground: Ground) -> Finding:
    """Whether untrusted checkpoints can be locked in."""
    del ground
    libc = ctypes.CDLL(None, use_errno=True)
    level = int(libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))
    if level < 1:
        return failed(
            f"The kernel has no Landlock ({os.strerror(ctypes.get_errno())}): pickled checkpoints "
            "are refused.",
            "Linux 5.13 or later with Landlock (lsm=landlock,...), also in the container.",
        )
    if level < GOOD_LANDLOCK:
        return warning(
            f"Landlock is at level {level}: it does not handle all rights.", "A newer kernel."
        )
    return ok(f"Landlock is at level {level}.")


def device(ground: Ground) -> Finding:
    """Whether the device of scans works; torch is loaded in a process of its own."""
    wanted = ground.settings.device
    there = any(Path("/dev").glob("nvidia[0-9]*"))
    if find_spec("torch") is None:
        return warning(
            "torch is not installed: this host can scan nothing.",
            "Nothing on hosts of the API, the relay and beat; elsewhere registry-guard[worker].",
        )
    if wanted.partition(":")[0] not in {"", "cuda"} or (not wanted and not there):
        return ok(f"Scans run on {wanted or 'cpu'}.")
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-P", "-c", _LOOK],
            capture_output=True,
            text=True,
            timeout=GPU_SECONDS - 5,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return unknown("torch gave no answer about the GPU.", "See `nvidia-smi`.")
    name = done.stdout.strip()
    if done.returncode or not name:
        return failed(
            f"A GPU is {'there' if there else 'wanted'}, and torch cannot use it.",
            "Install the driver and torch with CUDA, or set GUARD_DEVICE=cpu.",
        )
    return ok(f"Scans run on {name}.")


def tracing(ground: Ground) -> Finding:
    """Whether spans have where to go."""
    settings = ground.settings
    if not settings.otlp_endpoint:
        return ok("No traces are sent.")
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
        return failed(
            "GUARD_OTLP_ENDPOINT is set, and OpenTelemetry is not installed.",
            "pip install 'registry-guard[otel]', or unset it.",
        )
    try:
        parsed(settings.otlp_headers)
        url = urlsplit(settings.otlp_endpoint)
        port = url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((url.hostname or "", port), timeout=5).close()
    except GuardError as error:
        return failed(error.sentence, "Correct GUARD_OTLP_HEADERS.")
    except (OSError, ValueError) as error:
        return warning(
            f"The collector does not answer ({type(error).__name__}); spans are lost.",
            "Start it, or correct GUARD_OTLP_ENDPOINT.",
        )
    return ok("The collector of traces answers.")


CHECKS = (
    Check("disk", disk),
    Check("sandbox", sandbox),
    Check("device", device, GPU_SECONDS),
    Check("tracing", tracing),
)
