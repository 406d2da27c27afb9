"""The models that the server has loaded, and what it refused to load."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from guard.core.errors import GuardError, InputError, IntegrityMismatch
from guard.inference._released import Loaded, load

# The grammar of `guard.publishers._archive.check_names`, read again on this side.
_NAME = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9._-]{0,62}")
_VERSION = re.compile(r"(?!.*\.\.)[0-9a-z][0-9a-z._-]{0,31}")
_MAX_REASON = 1000


class NotLoaded(GuardError):
    """No model of this name and version is loaded."""

    code = "no_such_model"


class Models:
    """The models by name and version; an entry without a model holds why it was refused.

    Args:
        store: the folder of `NAME/VERSION/model.onnx` and `release.dsse.json`.
        trusted: the file of public keys, read at each load.
        threads: how many one request may use.
    """

    def __init__(self, store: Path, trusted: Path, *, threads: int = 1) -> None:
        self._store, self._trusted, self._threads = store, trusted, threads
        self._entries: dict[tuple[str, str], Loaded | str] = {}
        self._defaults: dict[str, str] = {}
        self._lock = threading.Lock()

    def load(self, name: str, version: str, now: datetime) -> None:
        """Load what lies in the store under a name and version, in place of what was loaded so.

        Raises:
            GuardError: a check failed; nothing is loaded under this name and version any more.
        """
        _check_names(name, version)
        try:
            found: Loaded | str = load(
                self._store / name / version,
                self._trusted,
                name=name,
                version=version,
                now=now,
                threads=self._threads,
            )
        except Exception as error:  # whatever fails: it is not loaded, and the reason is kept
            found = (str(error) or type(error).__name__)[:_MAX_REASON]
            with self._changing(name):
                self._entries[name, version] = found
            raise IntegrityMismatch(
                f"The server refuses {name} {version}: {found}", code="load_refused"
            ) from error
        with self._changing(name):
            self._entries[name, version] = found

    def unload(self, name: str, version: str) -> None:
        """Answer for it no more; a request that is being computed still ends. Twice is harmless."""
        with self._changing(name):
            self._entries.pop((name, version), None)

    def make_default(self, name: str, version: str) -> None:
        """Let a version answer requests that name none.

        Raises:
            NotLoaded: it is not loaded.
        """
        with self._lock:
            if not isinstance(self._entries.get((name, version)), Loaded):
                raise NotLoaded(f"{name} {version} is not loaded.")
            self._defaults[name] = version

    def find(self, name: str, version: str | None = None) -> Loaded:
        """The model of a version, or of the default one.

        Raises:
            NotLoaded: there is none.
        """
        with self._lock:
            entry = self._entries.get((name, version or self._defaults.get(name, "")))
        if not isinstance(entry, Loaded):
            raise NotLoaded("There is no such model; its name or version may have been withdrawn.")
        return entry

    def versions(self, name: str) -> list[str]:
        """The versions of a name that answer."""
        with self._lock:
            return sorted(
                version
                for (other, version), entry in self._entries.items()
                if other == name and isinstance(entry, Loaded)
            )

    def listed(self) -> list[dict[str, Any]]:
        """Every entry, for the guard to compare with what may be served."""
        with self._lock:
            rows = sorted(self._entries.items())
            defaults = dict(self._defaults)
        return [
            {
                "name": name,
                "version": version,
                "state": "READY" if isinstance(entry, Loaded) else "UNAVAILABLE",
                "reason": "" if isinstance(entry, Loaded) else entry,
                "default": defaults.get(name) == version,
                "digest": entry.digest if isinstance(entry, Loaded) else None,
                "release": entry.release_digest if isinstance(entry, Loaded) else None,
                "subject": entry.release.digest if isinstance(entry, Loaded) else None,
            }
            for (name, version), entry in rows
        ]

    @contextmanager
    def _changing(self, name: str) -> Iterator[None]:
        with self._lock:
            yield
            if not isinstance(self._entries.get((name, self._defaults.get(name, ""))), Loaded):
                self._defaults.pop(name, None)


def _check_names(name: str, version: str) -> None:
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise InputError(
            "Names and versions are of a-z, 0-9, '.', '_' and '-'.", code="bad_model_name"
        )
