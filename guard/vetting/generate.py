"""Generate molecules with a text-to-graph model from its files; that vets nothing."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from guard.core.contracts import Budget
from guard.core.errors import InputError
from guard.core.modality import Modality
from guard.core.text_request import TextRequest
from guard.vetting import examine
from guard.vetting.model_path import locate


def generate(
    path: Path, request: TextRequest, *, device: str | None = None, budget: Budget | None = None
) -> dict[str, Any]:
    """The answer to a request, as TorchServe gives it; the files are checked as uploads are.

    Raises:
        InputError: there is no such file, it is no text-to-graph model, or it refuses the text.
        ArtifactRejected: a rule of the format, the manifest or the architecture is broken.
        MissingExtra: RDKit is not installed.
    """
    weights, manifest = locate(path)
    with TemporaryDirectory() as folder:
        inspected = examine.inspect_upload(
            weights,
            weights.name,
            manifest.read_bytes() if manifest else None,
            Path(folder),
            budget=budget or Budget(),
        )
        if inspected.manifest.modality is not Modality.GRAPHS:
            raise InputError(
                f"Only {Modality.GRAPHS} models generate; this is a "
                f"{inspected.manifest.modality} model.",
                code="modality",
            )
        model = examine.open_model(inspected.canonical, device=device)
        from guard.graphs.answers import answer

        return {"digest": inspected.digest, **answer(model, request)}
