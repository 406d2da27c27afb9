"""Make `import torchvision` work when torch is a CPU build and torchvision is the CUDA wheel from
PyPI.

The wheel's compiled part needs CUDA libraries; without it the operator `torchvision::nms` is not
declared, and the Python part fails on import. We declare the operators, with no implementation:
classification models and transforms never call them, and whoever does gets torch's own error. A
no-op where torchvision imports by itself.
"""

import sys
from typing import Any

_kept: list[Any] = []  # a library object that is collected takes its operators along


def install() -> bool:
    """Declare what is missing; True if that was needed."""
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
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    import torchvision  # noqa: F401 - fails here rather than later

    return True
