"""Lock the calling process in for good, with resource limits, Landlock and seccomp.

Landlock grants no path at all, and seccomp works with an allow-list. Written with ctypes alone
against landlock(7), seccomp(2) and linux/filter.h, for x86_64 and aarch64 (the numbers of the
latter are from the kernel's tables and have not been run).
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from guard.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_NEW_USER, _NEW_NET, _NEW_IPC, _NEW_UTS = 0x10000000, 0x40000000, 0x08000000, 0x04000000
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_SECCOMP_SET_FILTER, _SECCOMP_ALL_THREADS = 1, 1
_CLONE_THREAD = 0x10000
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000
_NOBODY = 65534

#: What Python and torch need once everything is imported: memory, threads, the clock, the two open
#: pipes. No open(), no socket(), no exec(), no kill(). Anything else fails with EPERM.
_ALLOWED = {
    "x86_64": {
        "read": 0,
        "write": 1,
        "close": 3,
        "fstat": 5,
        "poll": 7,
        "lseek": 8,
        "mmap": 9,
        "mprotect": 10,
        "munmap": 11,
        "brk": 12,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "rt_sigreturn": 15,
        "pread64": 17,
        "readv": 19,
        "writev": 20,
        "sched_yield": 24,
        "mremap": 25,
        "madvise": 28,
        "nanosleep": 35,
        "getpid": 39,
        "exit": 60,
        "uname": 63,
        "fcntl": 72,
        "gettimeofday": 96,
        "getrusage": 98,
        "sysinfo": 99,
        "sigaltstack": 131,
        "gettid": 186,
        "time": 201,
        "futex": 202,
        "sched_getaffinity": 204,
        "restart_syscall": 219,
        "clock_gettime": 228,
        "clock_nanosleep": 230,
        "exit_group": 231,
        "newfstatat": 262,
        "set_robust_list": 273,
        "getcpu": 309,
        "getrandom": 318,
        "rseq": 334,
    },
    "aarch64": {
        "read": 63,
        "write": 64,
        "close": 57,
        "fstat": 80,
        "ppoll": 73,
        "lseek": 62,
        "mmap": 222,
        "mprotect": 226,
        "munmap": 215,
        "brk": 214,
        "rt_sigaction": 134,
        "rt_sigprocmask": 135,
        "rt_sigreturn": 139,
        "pread64": 67,
        "readv": 65,
        "writev": 66,
        "sched_yield": 124,
        "mremap": 216,
        "madvise": 233,
        "nanosleep": 101,
        "getpid": 172,
        "exit": 93,
        "uname": 160,
        "fcntl": 25,
        "gettimeofday": 169,
        "getrusage": 165,
        "sysinfo": 179,
        "sigaltstack": 132,
        "gettid": 178,
        "futex": 98,
        "sched_getaffinity": 123,
        "restart_syscall": 128,
        "clock_gettime": 113,
        "clock_nanosleep": 115,
        "exit_group": 94,
        "newfstatat": 79,
        "set_robust_list": 99,
        "getcpu": 168,
        "getrandom": 278,
        "rseq": 293,
    },
}
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_X32_BIT = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def _no(what: str) -> Unavailable:
    return Unavailable(
        f"The jail for PyTorch checkpoints cannot be built here ({what}); run the guard on Linux "
        "5.13 or later with Landlock and seccomp, or upload safetensors.",
        code="jail_unavailable",
    )


def _must(result: int, what: str) -> int:
    if result < 0:
        raise _no(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def leave_the_world() -> bool:
    """Die with the parent, hide from debuggers and move to new namespaces.

    Call it before any thread starts.

    Returns:
        Whether the process is in a user namespace now; where that is not permitted, the other locks
        still hold.
    """
    _must(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    _must(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")
    return bool(_libc.unshare(_NEW_USER | _NEW_NET | _NEW_IPC | _NEW_UTS) == 0)


def lock(*, memory_bytes: int, cpu_seconds: int, drop_user: bool) -> None:
    """Irrevocably give up everything that is not needed to turn open bytes into other bytes.

    Args:
        memory_bytes: address space on top of what is mapped now.
        cpu_seconds: the process is killed when it has used this much more.
        drop_user: become `nobody`; for root outside a user namespace.

    Raises:
        Unavailable: `jail_unavailable`; a lock cannot be set or does not hold.
    """
    if drop_user and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _limit(memory_bytes, cpu_seconds)
    _must(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _landlock()
    _seccomp()
    _check()


def _limit(memory_bytes: int, cpu_seconds: int) -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + 1
    cpu = used + cpu_seconds
    for kind, value in (
        (resource.RLIMIT_AS, mapped + memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    # SIGXCPU at the first, which says why; SIGKILL at the second.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 2))


def _landlock() -> None:
    """Let Landlock handle every right that the kernel knows, and grant none."""
    version = _must(
        _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)), "Landlock"
    )
    rights = 13 + (version >= 2) + (version >= 3) + (version >= 5)  # refer, truncate, ioctl
    network = 3 if version >= 4 else 0  # bind, connect
    scope = 3 if version >= 6 else 0  # abstract sockets, signals
    fields = 1 + (version >= 4) + (version >= 6)
    attributes = struct.pack("<QQQ", (1 << rights) - 1, network, scope)[: 8 * fields]
    rules = _must(
        _libc.syscall(
            _LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
        ),
        "Landlock",
    )
    _must(_libc.syscall(_LANDLOCK_RESTRICT, rules, ctypes.c_uint32(0)), "Landlock")
    os.close(rules)


def _seccomp() -> None:
    machine = platform.machine()
    if machine not in _ALLOWED:
        raise _no(f"no system call table for {machine}")
    program = b"".join(_filter(machine))
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _must(
        _libc.syscall(
            _SECCOMP[machine],
            ctypes.c_uint(_SECCOMP_SET_FILTER),
            ctypes.c_uint(_SECCOMP_ALL_THREADS),
            ctypes.c_char_p(header),
        ),
        "seccomp",
    )


def _filter(machine: str) -> list[bytes]:
    """The BPF program that decides about each system call.

    Offsets in struct seccomp_data: number at 0, architecture at 4, first argument at 16.
    """

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    steps = [step(load, 4), step(equal, _AUDIT[machine], 1), step(give, _KILL), step(load, 0)]
    if machine == "x86_64":
        steps += [step(at_least, _X32_BIT, 0, 1), step(give, _KILL)]
    for number in _ALLOWED[machine].values():
        steps += [step(equal, number, 0, 1), step(give, _ALLOW)]
    # clone3 hides its flags in memory. Where it seems not to exist, the C library falls back to
    # clone.
    steps += [step(equal, _CLONE3, 0, 1), step(give, _REFUSE | errno.ENOSYS)]
    # clone makes threads, never processes.
    steps += [
        step(equal, _CLONE[machine], 0, 3),
        step(load, 16),
        step(any_bit, _CLONE_THREAD, 0, 1),
    ]
    return [*steps, step(give, _ALLOW), step(give, _REFUSE | errno.EPERM)]


def _check() -> None:
    """Check that what must be impossible now does fail."""
    attempts: dict[str, Callable[[], object]] = {
        "open": lambda: os.open("/", os.O_RDONLY),
        "socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "fork": os.fork,
        "kill": lambda: os.kill(os.getpid(), 0),
    }
    for what, attempt in attempts.items():
        parent = os.getpid()
        try:
            attempt()
        except OSError:
            continue
        if os.getpid() != parent:
            os._exit(1)
        raise _no(f"{what} is still possible")
