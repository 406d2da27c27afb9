"""Turn canonical weights into the ONNX file that `guard.inference` serves, in a process of its own.

    python -I -B -m guard.serving.onnx_export WEIGHTS DIGEST OUT

Normalisation, network and softmax are in the file's graph, and the manifest in its metadata. Before
it is written, ONNX Runtime and the network answer the same random images; where a probability
differs by more than `TOLERANCE`, there is no file. The result is one line of JSON on stdout.
"""

import contextlib
import hashlib
import io
import json
import os
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guard.core.contracts import Smoke
from guard.core.errors import GuardError, IntegrityMismatch, NotServable
from guard.core.manifest import Manifest
from guard.formats._canonical import read_canonical
from guard.inference.runtime import INPUT, MANIFEST_KEY, OUTPUT, Session
from guard.ml.networks.architectures import ImageModel, load
from guard.serving._released import copy_weights

#: As in the smoke comparison that follows in the server.
TOLERANCE = Smoke.tolerance
#: Batches of the comparison; the sizes differ, so that no size is fixed in the graph.
_BATCHES = (1, 2, 5)
_MAX_BATCH = 64
_MAX_BYTES = (2 << 30) - (1 << 20)  # a protocol buffer cannot be larger


class _Probabilities(nn.Module):
    """Images float32 N,C,H,W in [0, 1] to probabilities N,K, as the vetted handler answers."""

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits.softmax(1)


def exported(weights: Path, digest: str) -> bytes:
    """The ONNX file of a canonical file.

    Args:
        weights: the canonical file.
        digest: the SHA-256 that its bytes must have.

    Raises:
        IntegrityMismatch: they have another one.
        NotServable: `not_exportable`: it is no image classifier, the exporter cannot express the
            network, or what it wrote answers otherwise.
        ArtifactRejected: as `guard.ml.networks.architectures.load`.
    """
    with os.fdopen(os.memfd_create("weights", os.MFD_CLOEXEC), "r+b") as private:
        if copy_weights(weights, private) != digest:
            raise IntegrityMismatch(
                "The weights are not the ones to be exported.", code="weights_digest"
            )
        manifest, tensors = read_canonical(private)
        if not isinstance(manifest, Manifest):
            raise NotServable(
                f"This publisher serves image classifiers only, and this is a {manifest.modality} "
                "model; serve it with GUARD_PUBLISHER=torchserve.",
                code="not_exportable",
            )
        model = load(manifest, tensors).eval().requires_grad_(requires_grad=False)
    data = _written(_Probabilities(model), manifest)
    try:
        worst = _difference(model, Session(data))
    except Exception as error:  # the errors of ONNX Runtime have no common type
        raise _refusal(manifest, _short(error)) from error
    if not worst <= TOLERANCE:
        raise _refusal(manifest, f"the exported network answers otherwise (by {worst:g})")
    return data


def _written(network: nn.Module, manifest: Manifest) -> bytes:
    example = torch.zeros(2, *manifest.input_size)
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of the libraries; the comparison decides
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: batch}},
                external_data=False,
                verbose=False,
            )
            if program is None:
                raise ValueError("the exporter gave nothing")
            proto = program.model_proto
    except Exception as error:  # any network, any complaint of the exporter's
        raise _refusal(manifest, _short(error)) from error
    return _stripped(proto, manifest)


def _stripped(proto: Any, manifest: Manifest) -> bytes:
    """The bytes of a model without traces of the machine; equal for equal models."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    for function in proto.functions:
        for part in (function, *function.node):
            del part.metadata_props[:]
            part.doc_string = ""
    del proto.metadata_props[:]
    entry = proto.metadata_props.add()
    entry.key, entry.value = MANIFEST_KEY, manifest.canonical().decode()
    proto.producer_name, proto.producer_version, proto.doc_string = "registry-guard", "", ""
    if proto.ByteSize() > _MAX_BYTES:
        raise _refusal(manifest, "its file would be larger than 2 GiB")
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _difference(model: ImageModel, session: Session) -> float:
    """The largest difference of a probability on random images; infinite where shapes differ.

    The best class is not compared here, since random images may have two: the smoke comparison that
    follows in the server has clean images.
    """
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for count in _BATCHES:
        images = torch.rand((count, *model.manifest.input_size), generator=generator)
        with torch.inference_mode():
            wanted = model(images).softmax(1)
        found = torch.from_numpy(session.run(images.numpy()))
        if found.shape != wanted.shape:
            return float("inf")
        worst = max(worst, float((found - wanted).abs().nan_to_num(torch.inf).max()))
    return worst


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {ascii(str(error))[:200]}"


def _refusal(manifest: Manifest, why: str) -> NotServable:
    return NotServable(
        f"{manifest.architecture} cannot be served as ONNX: {why}; serve it with "
        "GUARD_PUBLISHER=torchserve.",
        code="not_exportable",
    )


def main(arguments: list[str]) -> dict[str, str | bool]:
    """Export one file, and return what the parent process reads.

    Returns:
        `{"digest": ...}` of the file that was written, or the `sentence` of a refusal and whether
        the weights were `changed`.

    Raises:
        ModuleNotFoundError: the extra `export` is not installed.
    """
    weights, digest, out = arguments
    if find_spec("onnxscript") is None:  # no fault of the model's, which may come again
        raise ModuleNotFoundError("torch.onnx needs onnxscript; install registry-guard[export]")
    try:
        data = exported(Path(weights), digest)
    except GuardError as error:
        return {"sentence": error.sentence, "changed": isinstance(error, IntegrityMismatch)}
    with Path(out).open("xb") as file:
        file.write(data)
    return {"digest": hashlib.sha256(data).hexdigest()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1:])) + "\n")
