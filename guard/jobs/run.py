"""Run one heavy job in its own child process, without secrets and bounded in time and memory.

The child (`guard.jobs.child`, forked by `guard.jobs.server`) gets a request as JSON on stdin and a
private folder; it writes files there, its progress as JSON lines on stdout, and finally
`result.json`. A broken CUDA context, a memory leak or a crash ends with the child.
"""

import contextlib
import json
import math
import os
import selectors
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from guard.core import errors
from guard.core.errors import GuardError, MethodFailed, OutOfTime
from guard.core.progress import reckoned
from guard.core.tracing import parts_from, span
from guard.jobs import client

RESULT = "result.json"
_TRIES = 2
_LOOK_SECONDS = 0.5
STDERR_TAIL = 4000  # bytes of the child's stderr that are searched for the error message


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a job may use; `environment` holds all variables that the child sees.

    `gpu_memory_bytes` is what it may allocate on a GPU; 0 for all of it.
    """

    seconds: float
    memory_bytes: int
    environment: Mapping[str, str]
    gpu_memory_bytes: int = 0


def run_job(
    kind: str,
    request: Mapping[str, Any],
    out: Path,
    *,
    limits: Limits,
    on_progress: Callable[[float, str], None] = lambda _done, _note: None,
) -> dict[str, Any]:
    """Run one job to its end and return its result.

    Args:
        kind: a name from `guard.jobs.child.KINDS`.
        request: JSON-ready; paths and plain parameters.
        out: an existing private folder; the job's files stay there for the caller to take.
        on_progress: called at least every second; an exception from it ends the child and is
            raised.

    Raises:
        GuardError: the error the job ended with, of its own class.
        OutOfTime: it ran longer than `limits.seconds`.
        MethodFailed: it crashed or took more memory than `limits.memory_bytes`.
    """
    with span(f"job {kind}") as own:
        begun = time.time()
        answer = _run(kind, request, out, limits, on_progress)
        for part in parts_from(answer.get("spans"), begun, time.time()):
            own.part(part)
        if "error" in answer:
            raise _rebuilt(answer["error"])
    return dict(answer["result"])


def _run(
    kind: str,
    request: Mapping[str, Any],
    out: Path,
    limits: Limits,
    on_progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Run the child and return what it wrote: its result or its error, and its spans."""
    result = out / RESULT
    result.unlink(missing_ok=True)
    errors_file = out / "stderr.log"
    for _ in range(_TRIES):
        with errors_file.open("wb") as stderr, tempfile.TemporaryFile(dir=out) as stdin:
            given = {"kind": kind, "out": str(out), "gpu_memory_bytes": limits.gpu_memory_bytes}
            stdin.write(json.dumps({**given, **request}).encode())
            stdin.seek(0)
            with client.child(limits.environment, stdin, stderr) as child:
                _watch(child, limits, on_progress)
        if child.pid is not None:
            break  # otherwise the server died before the job began: try again
    if child.peak_bytes > limits.memory_bytes:
        raise _too_much(limits)  # reached between two checks of `_watch`
    if not result.exists():
        raise MethodFailed(_crash_sentence(kind, child.code, errors_file), code="job_crashed")
    return dict(json.loads(result.read_text()))


def _watch(child: client.Child, limits: Limits, on_progress: Callable[[float, str], None]) -> None:
    """Read progress until the child has ended, checking clock and memory twice a second."""
    deadline = time.monotonic() + limits.seconds
    look_at = time.monotonic()  # a look at the memory goes through all processes
    state, rest = _State(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.report, selectors.EVENT_READ)
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            with reckoned(state.left):
                on_progress(state.done, state.note)
            for key, _ in selector.select(timeout=_LOOK_SECONDS):
                if key.fd == child.report:
                    if not child.receive():
                        return
                elif data := os.read(child.stdout, 65536):
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        state = _progress(line, state)
                else:
                    selector.unregister(child.stdout)
            now = time.monotonic()
            if now > deadline:
                raise OutOfTime(
                    f"The job took longer than {limits.seconds:.0f} s; raise GUARD_SCAN_SECONDS."
                )
            if child.pid is not None and now >= look_at:
                look_at = now + _LOOK_SECONDS
                if _memory(child.pid) > limits.memory_bytes:
                    raise _too_much(limits)


def _too_much(limits: Limits) -> MethodFailed:
    return MethodFailed(
        f"The job took more than {limits.memory_bytes >> 20} MiB; raise GUARD_SCAN_MEMORY_BYTES.",
        code="out_of_memory",
    )


@dataclass(frozen=True)
class _State:
    """How far a job is, with the seconds that it reckons with."""

    done: float = 0.0
    note: str = ""
    left: float | None = None


def _progress(line: bytes, state: _State) -> _State:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        value = json.loads(line)
        left = float(value.get("seconds_left", math.nan))
        known = left if math.isfinite(left) else None
        return _State(float(value["done"]), str(value["note"])[:200], known)
    return state


def _memory(pid: int) -> int:
    with contextlib.suppress(psutil.Error):
        family = [psutil.Process(pid)]
        family += family[0].children(recursive=True)
        return sum(member.memory_info().rss for member in family)
    return 0


def _crash_sentence(kind: str, code: int | None, log: Path) -> str:
    lines = log.read_bytes()[-STDERR_TAIL:].decode(errors="replace").strip().splitlines()
    if code is None:
        how = "was lost with its server"
    else:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"The {kind} job {how}" + (f": {lines[-1]}" if lines else ".")


def _rebuilt(error: Mapping[str, str]) -> GuardError:
    """The job's error as an object of its own class; `MethodFailed` if the class is unknown."""
    cls = getattr(errors, error["type"], MethodFailed)
    if not (isinstance(cls, type) and issubclass(cls, GuardError)):
        cls = MethodFailed
    return cls(error["sentence"], code=error["code"])
