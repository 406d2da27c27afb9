"""The folders of a stack: permanent data, a temporary private run folder, and who uses them now."""

import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guard.core.errors import InputError, Unavailable
from guard.local._process import kill_group, started_at

RECORD = "stack.json"
_SECRETS = "secrets.json"
_LOCK = "stack.lock"
#: A socket's path has at most 107 bytes; this leaves room for what parts append to the run folder.
_LONGEST_RUN_PATH = 60
_NAMES = ("s3_access", "s3_secret", "webhook", "valkey", "weed_jwt")


class RunFolder:
    """One stack's exclusive use of its data folder.

    A second stack is refused, and what a killed stack left behind is removed.

    Args:
        data: created with mode 0700 if it does not exist.

    Raises:
        InputError: another stack uses it.
        Unavailable: it cannot be written.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        try:
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Held until this object is closed; the kernel releases it if this process is killed.
            self._lock = os.open(data / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(
                f"{data} cannot be used ({error}); choose another data folder."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise InputError(
                f"Another `guard up` uses {data}; stop it first, or give this one another data "
                "folder.",
                code="stack_running",
            ) from error
        self._remove_leftovers()
        self.run = self._make_run()
        self.secrets = self._load_secrets()
        self.record({}, {})

    def record(self, processes: Mapping[str, int], environment: Mapping[str, str]) -> None:
        """Record what runs, for the next start and for commands in other terminals."""
        value = {
            "run": str(self.run),
            "environment": dict(environment),
            "processes": {
                name: {"pid": pid, "started": started_at(pid)} for name, pid in processes.items()
            },
        }
        draft = self.data / f".{RECORD}"
        _write_private(draft, json.dumps(value))
        draft.replace(self.data / RECORD)

    def close(self) -> None:
        """Remove temporary files and release the folder; a second call is harmless."""
        if self._lock < 0:
            return
        shutil.rmtree(self.run, ignore_errors=True)
        (self.data / RECORD).unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1

    def _remove_leftovers(self) -> None:
        value = read_record(self.data)
        for process in value.get("processes", {}).values():
            pid, started = process.get("pid"), process.get("started")
            # The pid may belong to another process by now; its start time shows that.
            if isinstance(pid, int) and started is not None and started_at(pid) == started:
                kill_group(pid)
        run = value.get("run")
        if isinstance(run, str) and (Path(run) / _LOCK).is_file():
            shutil.rmtree(run, ignore_errors=True)
        (self.data / RECORD).unlink(missing_ok=True)

    def _make_run(self) -> Path:
        run = self.data / "run"
        if len(os.fsencode(run)) > _LONGEST_RUN_PATH:
            run = Path(tempfile.mkdtemp(prefix="guard-"))
        else:
            shutil.rmtree(run, ignore_errors=True)
            run.mkdir(mode=0o700)
        (run / _LOCK).touch()  # marks a folder that is ours to delete
        return run

    def _load_secrets(self) -> dict[str, str]:
        """Secrets made once for this data folder, so that they stay the same over restarts."""
        try:
            known = json.loads((self.data / _SECRETS).read_text())
        except (OSError, ValueError):
            known = {}
        values = {name: str(known.get(name) or secrets.token_hex(16)) for name in _NAMES}
        if values != known:
            _write_private(self.data / _SECRETS, json.dumps(values))
        return values | {"node": secrets.token_hex(4)}


def read_record(data: Path) -> dict[str, Any]:
    """What the stack that uses (or used) this folder recorded; empty if there is none."""
    try:
        value = json.loads((data / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
