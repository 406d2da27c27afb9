"""A released ONNX model in a store, and requests to it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guard.core.contracts import ServedForm
from guard.core.digests import sha256
from guard.inference._released import Loaded, load
from tests.publishers.inference_site import exported_here
from tests.publishers.making import Authority, Vetted

NAME, VERSION = "digits", "1.0"


def put(
    store: Path, model: Vetted, authority: Authority, *, name: str = NAME, **options: Any
) -> Path:
    """What a publish leaves in the store."""
    folder = store / name / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.onnx"
    exported_here(model.path, model.digest, file, seconds=60)
    served = ServedForm(format="onnx", digest=sha256(file.read_bytes()))
    approved = authority.approve(
        model.digest, name, VERSION, **{"served": served, "seconds": 3600.0, **options}
    )
    (folder / "release.dsse.json").write_text(json.dumps(approved.release_envelope))
    return folder


def loaded(folder: Path, authority: Authority, *, after: float = 0.0) -> Loaded:
    """Load it as the server does, some seconds from now."""
    return load(
        folder,
        authority.trusted,
        name=folder.parent.name,
        version=folder.name,
        now=datetime.now(UTC) + timedelta(seconds=after),
        threads=1,
    )


def tensor(images: NDArray[Any], kind: str = "FP32", **more: Any) -> dict[str, Any]:
    """One input as JSON."""
    data = np.asarray(images).reshape(-1).tolist()
    return {
        "name": "images",
        "datatype": kind,
        "shape": list(images.shape),
        "data": data,
        **more,
    }


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    """A request as JSON."""
    return json.dumps({"inputs": list(inputs), **more}).encode()
