"""How text-to-graph models are vetted; the functions of `guard.vetting.modalities.Kind`."""

from typing import TYPE_CHECKING, Any

from guard.core.contracts import Budget, Header
from guard.core.errors import ManifestRejected, MethodFailed
from guard.core.evidence import Evidence
from guard.core.graph_manifest import GraphManifest
from guard.core.molecules import require_rdkit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from guard.core.pairs import CuratedPairs

PARTS = ("text.", "vae.", "denoiser.")


def check(manifest: GraphManifest, header: Header, *, budget: Budget) -> None:
    """Refuse weights of other parts than a text tower, an autoencoder and a denoiser."""
    del manifest, budget
    require_rdkit()
    for part in PARTS:
        if not any(info.name.startswith(part) for info in header.tensors):
            raise ManifestRejected(
                f"The weights have no tensors {part}*, which a text-to-graph model consists of.",
                code="manifest_shapes",
            )
    for info in header.tensors:
        if not info.name.startswith(PARTS):
            raise ManifestRejected(
                f"The tensor {info.name[:80]} belongs to no part of the model.",
                code="manifest_shapes",
            )


def load(manifest: GraphManifest, tensors: "Mapping[str, Tensor]") -> "nn.Module":
    """Not in this release."""
    del manifest, tensors
    raise MethodFailed("This release opens no text-to-graph model yet.", code="modality")


def read_clean(data: bytes, name: str) -> "CuratedPairs":
    """A stored set of pairs."""
    from guard import cleansets

    return cleansets.load_pairs(data, name)


def fits(manifest: GraphManifest, curated: "CuratedPairs") -> None:
    """Any pair set fits: that a molecule cannot be built shows in the measured quality."""
    del manifest, curated


def measured(model: Any, artifact: str, curated: "CuratedPairs", *, seed: int) -> Evidence:
    """Not in this release."""
    del model, artifact, curated, seed
    raise MethodFailed("This release measures no text-to-graph model yet.", code="modality")


def with_rates(
    item: Evidence, model: Any, curated: "CuratedPairs", triggers: dict[str, bytes], *, seed: int
) -> Evidence:
    """The evidence as it is."""
    del model, curated, triggers, seed
    return item


def smoke(model: Any, curated: "CuratedPairs") -> bytes:
    """Nothing to compare yet."""
    del model, curated
    return b"{}"
