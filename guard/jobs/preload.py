"""What is imported ahead of time, since it takes seconds.

Only imported, never used: threads do not survive a fork.
"""

from importlib import import_module

from guard.defenses import DEFENSES
from guard.detectors import DETECTORS
from guard.formats import FORMATS

#: Imported inside functions, so that the command line starts without them.
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
)


def methods() -> None:
    """Every method, for a worker that decides: the policy asks for their versions."""
    DETECTORS.all()
    DEFENSES.all()


def jobs() -> None:
    """Everything that `guard.jobs.child` needs, whatever it is asked."""
    methods()
    FORMATS.all()
    for name in _JOBS_NEED:
        import_module(name)
    import_module("guard.ml.networks.architectures").preload()
