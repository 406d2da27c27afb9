"""The Registry Guard: vets neural networks for backdoors between a model registry and serving.

The public Python API, each name loaded on first use so that importing `guard` loads no torch:

    load_model(path)   -> torch.nn.Module that takes float images N,C,H,W in [0, 1]
    scan(path, ...)    -> Report
    purify(path, ...)  -> Report
    sift(path, ...)    -> SiftReport
    retrain(set, ...)  -> Report
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guard.offline import load_model, purify, scan
    from guard.offline_retrain import retrain
    from guard.offline_sift import sift

    __version__: str

__all__ = ["load_model", "purify", "retrain", "scan", "sift"]

_ELSEWHERE = {"sift": "guard.offline_sift", "retrain": "guard.offline_retrain"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in __all__:
        raise AttributeError(f"module 'guard' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_ELSEWHERE.get(name, "guard.offline")), name)


def _version() -> str:
    """The version of the installed distribution, which the build takes from the tag."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("registry-guard")
    except PackageNotFoundError:
        return "0+unknown"  # a source folder on the path that nobody installed
