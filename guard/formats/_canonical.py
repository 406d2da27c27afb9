"""The canonical file: what is vetted, signed and served, whatever form the upload had.

Equal tensors and an equal manifest always give the same bytes.
"""

import hashlib
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from guard.core.contracts import Budget
from guard.core.manifests import AnyManifest, parse_manifest
from guard.formats._bytes import read_at, reject
from guard.formats._names import check_name
from guard.formats._write import file_order, header_bytes, write_tensors
from guard.formats.safetensors import Safetensors, read_layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

MANIFEST_KEY, FORMAT_KEY, FORMAT_VERSION = "guard.manifest", "guard.format", "1"
_BUDGET = Budget(metadata_bytes=2 << 20)  # room for the largest manifest beside the keys


def write_canonical(tensors: "Mapping[str, Tensor]", manifest: AnyManifest, path: Path) -> str:
    """Write the canonical file to `path` atomically and return its SHA-256.

    Types and shapes are kept. The manifest is part of the header, so the digest covers it.

    Raises:
        ArtifactRejected: no tensors, a bad name, or a type that is not vetted.
    """
    if not tensors:
        raise reject("no_tensors", "There are no tensors to write; upload the model's weights.")
    for name in tensors:
        check_name(name, budget=_BUDGET)
    metadata = {MANIFEST_KEY: manifest.canonical().decode(), FORMAT_KEY: FORMAT_VERSION}
    hasher = hashlib.sha256()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".canonical-")
    try:
        with os.fdopen(descriptor, "wb") as file:

            def sink(part: bytes) -> None:
                hasher.update(part)
                file.write(part)

            write_tensors(tensors, metadata, sink)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return hasher.hexdigest()


def read_canonical(
    source: Path | BinaryIO, *, budget: Budget = _BUDGET
) -> "tuple[AnyManifest, dict[str, Tensor]]":
    """The manifest and the finite tensors of a canonical file.

    Raises:
        ArtifactRejected: a rule of safetensors is broken; or `not_canonical`: the guard would not
            have written the file in this form.
    """
    with ExitStack() as stack:
        file = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
        manifest = read_manifest(file, budget=budget)
        return manifest, Safetensors().tensors(file, budget=budget)


def read_manifest(file: BinaryIO, *, budget: Budget = _BUDGET) -> AnyManifest:
    """The manifest of a canonical file, whose header is checked byte for byte.

    Reads no tensor and needs no torch.

    Raises:
        ArtifactRejected: as `read_canonical`.
    """
    layout = read_layout(file, budget=budget)
    if (
        layout.metadata.keys() != {MANIFEST_KEY, FORMAT_KEY}
        or layout.metadata[FORMAT_KEY] != FORMAT_VERSION
    ):
        raise reject(
            "not_canonical",
            "This is not a canonical file of the guard; have the guard vet the model first.",
        )
    manifest = parse_manifest(layout.metadata[MANIFEST_KEY].encode())
    again = header_bytes(
        sorted((info for info, _, _ in layout.entries), key=file_order), layout.metadata
    )
    same = manifest.canonical().decode() == layout.metadata[MANIFEST_KEY]
    if not same or again != bytes(read_at(file, 0, layout.start)):
        raise reject(
            "not_canonical",
            "The file's header differs from the one the guard writes; have the model vetted again.",
        )
    return manifest
