"""Run a converter on an untrusted file in a child process that can do nothing but compute.

The child starts afresh (no memory, environment or open file of ours), locks itself in (`_locks`)
and reports that before it reads a byte. It is killed with its process group when its time is up,
and more output than the budget allows is refused.
"""

import io
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO

from guard.core.contracts import Budget
from guard.core.errors import Unavailable
from guard.formats._bytes import UPLOAD_INSTEAD, reject, show, size_of

LOCKED, SENT, REFUSED = b"L", b"S", b"R"
PROGRAM = ("-m", "guard.formats._jail_child")
_SPARE_BYTES = 1 << 30  # on top of three times the file: torch's own working memory
#: torch.load and the copy run at hundreds of MB a second, and 20,000 tensors take 2 s. A file that
#: needs more computes something else: the hash of n nested tuples, a dictionary's key, takes 2^n.
_CPU_SECONDS, _BYTES_PER_CPU_SECOND = 5, 4 << 20
_MAX_REFUSAL = 200
_STDERR_BYTES = 2000
_START_SECONDS = 60.0  # importing torch on a busy machine; before a byte of the file is read
#: No PATH to find programs by, no HOME, no secrets. One thread, as the locks bind the thread that
#: sets them.
_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

_REASONS = {
    "unsafe_pickle": "it holds Python objects, not only tensors",
    "checkpoint_unreadable": "torch.load cannot read it",
    "no_state_dict": "it holds no state dict (a mapping from names to tensors)",
    "ambiguous_checkpoint": "it holds several state dicts that name the same tensor",
    "tensor_kind": "it holds sparse or quantised tensors",
    "dtype_not_allowed": "it holds tensors of a type that is not vetted",
    "output_too_large": "its tensors unfold to more bytes than the guard vets",
    "over_memory_budget": "reading it needs more memory than the budget allows",
}


def run_jailed(
    file: BinaryIO,
    out: BinaryIO,
    *,
    budget: Budget,
    parts: Sequence[tuple[int, int]] = (),
    program: tuple[str, ...] = PROGRAM,
) -> None:
    """Convert `file` into `out`, which the caller must parse as strictly as any upload.

    Args:
        file: seekable; the child gets a read-only descriptor of its own.
        out: receives at most `budget.file_bytes + budget.header_bytes` bytes.
        budget: seconds of wall clock, and memory; CPU time is bounded by the file's size too.
        parts: where the file holds several checkpoints, first byte and size of each: the name of
            each tensor is then its checkpoint's number, a dot and its own name.
        program: arguments of the Python interpreter; another program than ours is for tests of the
            jail.

    Raises:
        ArtifactRejected: the checkpoint is refused, or takes too long, too much memory or crashes
            its reader.
        Unavailable: `jail_unavailable`; the child could not lock itself in.
    """
    size = size_of(file, budget)
    limits = {
        "memory_bytes": min(budget.memory_bytes, 3 * size + _SPARE_BYTES),
        "cpu_seconds": cpu_seconds(size, budget),
        "output_bytes": budget.file_bytes,
        "parts": list(parts),
    }
    with ExitStack() as stack:
        descriptor = stack.enter_context(_read_only(file))
        process = stack.enter_context(
            subprocess.Popen(  # noqa: S603 - our own interpreter and program
                [sys.executable, "-I", "-B", *program, json.dumps(limits)],
                stdin=descriptor,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
                close_fds=True,
            )
        )
        stack.callback(_kill, process)
        answer = _Answer(out, budget)
        answer.collect(process)
        _kill(process)
        process.wait()
    answer.check(process.returncode)


def cpu_seconds(size: int, budget: Budget) -> int:
    """The CPU time that a file of this size can need, at most the budget."""
    return min(int(budget.seconds) + 1, _CPU_SECONDS + size // _BYTES_PER_CPU_SECOND)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _read_only(file: BinaryIO) -> BinaryIO:
    """The file under a descriptor of its own, with its own position, that cannot write."""
    if isinstance(file, (io.BufferedReader, io.BufferedRandom, io.FileIO)):
        try:
            file.flush()
            return open(f"/proc/self/fd/{file.fileno()}", "rb", buffering=0)  # noqa: PTH123 - a descriptor; returned
        except OSError:
            pass  # no /proc: copy
    copy = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - returned to a with
    file.seek(0)
    shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy


class _Answer:
    """The child's bounded output: the lock report, then a refusal's code or converted bytes."""

    def __init__(self, out: BinaryIO, budget: Budget) -> None:
        self.out = out
        self.seconds = budget.seconds
        self.room = budget.file_bytes + budget.header_bytes
        self.locked = self.sent = self.late = False
        self.refusal = bytearray()  # REFUSED and a code
        self.stderr = bytearray()

    def collect(self, process: "subprocess.Popen[bytes]") -> None:
        """Read until the child closes its output, runs out of time or exceeds the budget."""
        assert process.stdout is not None  # noqa: S101 - for mypy: both are pipes
        assert process.stderr is not None  # noqa: S101
        deadline = time.monotonic() + _START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stderr, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready or time.monotonic() > deadline:
                    self.late = True
                    return
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 16)
                    was_locked = self.locked
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stderr:
                        self.stderr += data[: max(0, _STDERR_BYTES - len(self.stderr))]
                    else:
                        self._take(data)
                    if self.locked and not was_locked:
                        deadline = time.monotonic() + self.seconds

    def _take(self, data: bytes) -> None:
        if not self.locked:
            self.locked, data = data[:1] == LOCKED, data[1:]
        if not self.locked:
            return
        if self.sent:
            self._keep(data)
        elif not self.refusal and data[:1] == SENT:
            self.sent = True
            self._keep(data[1:])
        else:
            self.refusal += data[: max(0, _MAX_REFUSAL - len(self.refusal))]

    def _keep(self, data: bytes) -> None:
        self.room -= len(data)
        if self.room < 0:
            raise reject(
                "output_too_large",
                f"The checkpoint cannot be used: {_REASONS['output_too_large']}.",
            )
        self.out.write(data)

    def check(self, status: int) -> None:
        """Return if the child converted the file and ended well.

        Raises:
            ArtifactRejected, Unavailable: as `run_jailed`.
        """
        if not self.locked:
            why = (
                "the child took too long to start"
                if self.late
                else self.stderr.decode("utf-8", "replace")
            )
            sentence = (
                f"The jail for PyTorch checkpoints did not start: {show(why, 300)}; fix that, or "
                "upload safetensors."
            )
            raise Unavailable(sentence, code="jail_unavailable")
        if self.late or -status == signal.SIGXCPU:
            sentence = (
                "The checkpoint took longer to read than one of its size can need; "
                f"{UPLOAD_INSTEAD}."
            )
            raise reject("over_time_budget", sentence)
        if self.refusal[:1] == REFUSED:
            code = self.refusal[1:].decode("ascii", "replace")
            if code in _REASONS:
                raise reject(
                    code, f"The checkpoint cannot be used: {_REASONS[code]}; {UPLOAD_INSTEAD}."
                )
        if not self.sent or status != 0:
            raise reject(
                "jail_crashed",
                f"The checkpoint broke its reader (status {status}); {UPLOAD_INSTEAD}.",
            )
