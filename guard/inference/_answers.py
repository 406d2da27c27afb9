"""Answers of the open inference protocol: metadata, and the tensors of a prediction."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from guard.inference._released import Loaded
from guard.inference.runtime import INPUT, OUTPUT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from guard.inference._requests import Request

CLASS, LABEL = "class", "label"
PLATFORM = "onnxruntime_onnx"
HEADER_LENGTH = "Inference-Header-Content-Length"
_LENGTH_BYTES = 4
#: How a tensor of each type is written as raw bytes.
_RAW = {"FP32": "<f4", "INT64": "<i8"}


def output_names(model: Loaded) -> tuple[str, ...]:
    """The outputs of a model; `label` where its manifest names the classes."""
    return (OUTPUT, CLASS, LABEL) if model.manifest.label_names else (OUTPUT, CLASS)


def metadata(model: Loaded, versions: Sequence[str]) -> dict[str, Any]:
    """A model as the protocol describes it; `parameters` says what was vetted, and until when."""
    columns = {OUTPUT: ("FP32", [-1, model.manifest.num_classes])}
    columns |= {CLASS: ("INT64", [-1]), LABEL: ("BYTES", [-1])}
    return {
        "name": model.release.name,
        "versions": list(versions),
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, *model.manifest.input_size]}],
        "outputs": [
            {"name": name, "datatype": columns[name][0], "shape": columns[name][1]}
            for name in output_names(model)
        ],
        "parameters": {
            "version": model.release.version,
            "digest": model.release.digest,
            "verdict_id": model.release.verdict_id,
            "expires_at": model.release.expires_at.isoformat(),
            "architecture": model.manifest.architecture,
            "labels": list(model.manifest.label_names),
        },
    }


def prediction(
    model: Loaded, request: "Request", probabilities: "NDArray[np.float32]"
) -> tuple[bytes, dict[str, str]]:
    """The answer to a request and its headers: JSON, with raw tensors behind it where asked for.

    Args:
        model: what computed the probabilities.
        request: what was asked for.
        probabilities: float32 N,K.
    """
    columns = _columns(model, probabilities)
    outputs, raw = [], []
    for name, wanted_raw in request.outputs:
        kind, shape, values = columns[name]
        output: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape}
        if wanted_raw:
            data = _bytes(kind, values)
            raw.append(data)
            output["parameters"] = {"binary_data_size": len(data)}
        else:
            output["data"] = values if kind == "BYTES" else values.reshape(-1).tolist()
        outputs.append(output)
    answer = {
        "model_name": model.release.name,
        "model_version": model.release.version,
        **({"id": request.id} if request.id else {}),
        "outputs": outputs,
    }
    head = json.dumps(answer).encode()
    if not raw:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return b"".join([head, *raw]), headers


def _columns(
    model: Loaded, probabilities: "NDArray[np.float32]"
) -> Mapping[str, tuple[str, list[int], Any]]:
    best = probabilities.argmax(1)
    count, classes = probabilities.shape
    labels = model.manifest.label_names
    return {
        OUTPUT: ("FP32", [count, classes], probabilities),
        CLASS: ("INT64", [count], best),
        LABEL: ("BYTES", [count], [labels[one] for one in best] if labels else []),
    }


def _bytes(kind: str, values: Any) -> bytes:
    if kind in _RAW:
        return np.ascontiguousarray(values, _RAW[kind]).tobytes()
    encoded = [text.encode() for text in values]
    return b"".join(len(one).to_bytes(_LENGTH_BYTES, "little") + one for one in encoded)
