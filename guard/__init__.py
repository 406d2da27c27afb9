"""The Registry Guard: vets neural networks for backdoors between a model registry and serving.

The public Python API, each name loaded on first use so that importing `guard` loads no torch:

    load_model(path)   -> torch.nn.Module that takes images in [0, 1] as N,C,H,W
    scan(path, ...)    -> Report
    purify(path, ...)  -> Report
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guard.offline import load_model, purify, scan

    __version__: str

__all__ = ["load_model", "purify", "scan"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in __all__:
        raise AttributeError(f"module 'guard' has no attribute {name!r}")
    from guard import offline

    return getattr(offline, name)


def _version() -> str:
    """The version of the installed distribution; its tag is where it comes from."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("registry-guard")
    except PackageNotFoundError:
        return "0+unknown"  # a source folder on the path that nobody installed
