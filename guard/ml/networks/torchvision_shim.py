"""Make `import torchvision` work with a CPU build of torch and the CUDA wheel of torchvision.

The wheel's compiled part needs CUDA libraries; without it the operator `torchvision::nms` is not
declared, and the Python part fails on import. We declare the operators without an implementation:
classification models and transforms never call them, and a call raises torch's own error. This is a
no-op where torchvision imports by itself.

torch calls `autoload` at the end of `import torch` (the entry point in pyproject.toml, decision
0023), so that a script of the user may import timm or torchvision first. Where the guard runs from
a folder that nobody installed there is no entry point, and the guard calls `install` before it
uses torchvision.
"""

import contextlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_kept: list[Any] = []  # a library object that is collected takes its operators along


def autoload() -> None:
    """Declare the operators if torchvision here is a CUDA wheel and torch is not; imports neither.

    Never raises: torch would refuse to be imported.
    """
    with contextlib.suppress(Exception):
        if _mismatched():
            _declare()


def install() -> bool:
    """Declare the operators that are missing; True if that was needed."""
    if _kept:
        return False
    try:
        import torchvision  # the import is the question
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    else:
        return False
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _declare()
    import torchvision  # noqa: F401 - fails here rather than later

    return True


def _mismatched() -> bool:
    torch = sys.modules["torch"]
    spec = find_spec("torchvision")
    if _kept or torch.version.cuda is not None or spec is None or spec.origin is None:
        return False
    # Read, not imported: the import is what fails. CPU wheels say `+cpu` or have no local part.
    version = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    return "+cu" in version


def _declare() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
