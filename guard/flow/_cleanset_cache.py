"""Cache of the values that detectors compute from a clean set alone.

A job that sees no model computes them once on each machine. A reference model that a detector
trains on the clean set takes longer than the search on a small model, and is the same for every
upload. The cache lies below the data folder of each machine, since floats differ between machines;
an entry that cannot be read is made anew.
"""

import contextlib
import json
import logging
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from guard.core.digests import json_digest
from guard.core.errors import Cancelled, MethodFailed
from guard.core.evidence import AnyCleanSet
from guard.detectors import DETECTORS
from guard.flow._lease import Held
from guard.flow.context import Guard
from guard.jobs.run import run_job
from guard.vetting import battery_secret

log = logging.getLogger(__name__)


def prepared(guard: Guard, held: Held, cleanset: AnyCleanSet) -> dict[str, Any]:
    """The values that the policy's detectors need of this clean set, by detector.

    Empty where they could not be made; the detectors then compute them themselves.
    """
    path = _place(guard, cleanset)
    found = _read(path)
    if found is None:
        try:
            found = _make(guard, held, cleanset)
        except Cancelled:
            raise
        except MethodFailed as error:
            log.warning(
                "nothing could be prepared for clean set %s: %s", cleanset.name, error.sentence
            )
            return {}
        _write(path, found)
    return found


def _make(guard: Guard, held: Held, cleanset: AnyCleanSet) -> dict[str, Any]:
    request = {
        "cleanset": str(guard.blobs.path(cleanset.digest)),
        "cleanset_name": cleanset.name,
        "detectors": {name: dict(rule.params) for name, rule in guard.policy.detectors.items()},
        "device": guard.settings.device,
        "battery": battery_secret.needed_by(guard.policy.detectors, guard.settings.data_dir),
    }
    with guard.workspace() as out:
        return run_job("prepare", request, out, limits=guard.limits(), on_progress=held.alive)


def _place(guard: Guard, cleanset: AnyCleanSet) -> Path:
    """The path of the cache file; its name is a digest of everything that went into it."""
    methods = {
        name: DETECTORS.get(name)(**dict(rule.params))
        for name, rule in guard.policy.detectors.items()
    }
    made_with = {name: [method.version, method.parameters()] for name, method in methods.items()}
    secret = battery_secret.needed_by(methods, guard.settings.data_dir)
    drawn = filter(None, [battery_secret.commitment_of(secret)])
    digest = json_digest(
        [cleanset.digest, made_with, guard.settings.device, version("torch"), *drawn]
    )
    return Path(guard.settings.data_dir) / "prepared" / f"{digest}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("references"), dict) else None


def _write(path: Path, found: dict[str, Any]) -> None:
    """Write the cache file; on a full disk this scan goes on and the next one repeats the work."""
    partial = path.with_suffix(f".partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial.write_text(json.dumps(found, allow_nan=False))
        partial.replace(path)
    except OSError as error:
        log.warning("the values of a clean set could not be cached in %s: %s", path.parent, error)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
