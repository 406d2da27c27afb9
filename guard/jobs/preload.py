"""Imports that are made ahead of time, because they take seconds.

The modules are only imported, never used, because threads do not survive a fork.
"""

from importlib import import_module

from guard.defenses import DEFENSES
from guard.detectors import DETECTORS
from guard.formats import FORMATS

#: The guard imports these inside functions, so that the command line starts without them.
_JOBS_NEED = (
    "guard.cleansets",
    "guard.formats._canonical",
    "guard.formats._read",
    "guard.ml.networks.architectures",
    "guard.ml.cleanset",
    "guard.ml.devices",
    "guard.ml.measure",
    "guard.ml.samples",
    "guard.ml.triggers.files",
    "guard.trainsets",
)


def methods() -> None:
    """Import every method, for a worker that decides: the policy reads their versions."""
    DETECTORS.all()
    DEFENSES.all()


def jobs() -> None:
    """Import everything that `guard.jobs.child` needs for any kind of job."""
    methods()
    FORMATS.all()
    for name in _JOBS_NEED:
        import_module(name)
    import_module("guard.ml.networks.architectures").preload()
