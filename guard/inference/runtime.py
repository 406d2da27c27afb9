"""ONNX Runtime as the guard uses it: from bytes in memory, on the CPU, and without its telemetry.

The official builds for Linux report to Microsoft by default (its Privacy.md). The variable below
prevents that for the whole process, if it is set before the import; nothing else in the guard
imports `onnxruntime`.
"""

import os
from typing import TYPE_CHECKING, Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Names in the graph, and where the file keeps the manifest of what it was made from.
INPUT, OUTPUT, MANIFEST_KEY = "images", "probabilities", "guard.manifest"


class Session:
    """One ONNX file, ready to run.

    Args:
        data: the file's bytes.
        threads: how many one run may use.

    Raises:
        Exception: ONNX Runtime refuses the file; its errors have no common type.
    """

    def __init__(self, data: bytes, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait would otherwise keep a core busy, once for each model.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )

    @property
    def manifest(self) -> bytes:
        """The manifest in the file's metadata as JSON; empty where there is none."""
        metadata = self._session.get_modelmeta().custom_metadata_map
        return str(metadata.get(MANIFEST_KEY, "")).encode()

    def run(self, images: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Probabilities float32 N,K of images float32 N,C,H,W in [0, 1]."""
        found: NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: images})[0]
        return found
