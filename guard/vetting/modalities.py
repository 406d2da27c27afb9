"""How models of each modality are vetted: one module each, all with the functions of `Kind`.

Another modality is another module here (docs/how-to/add-a-modality.md).
"""

from typing import TYPE_CHECKING, Any, Protocol

from guard.core.contracts import Budget, Header
from guard.core.errors import CleanSetError
from guard.core.evidence import Evidence
from guard.core.manifests import AnyManifest
from guard.core.modality import HOLDS, Modality

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(Protocol):
    """What the guard does differently for models of one modality.

    `manifest`, `model` and `curated` are of that modality: for images `Manifest`, `ImageModel` and
    `CuratedSet`. What is opened has the attribute `manifest`.
    """

    def conformed(
        self, manifest: Any, tensors: "Mapping[str, Any]", *, budget: Budget
    ) -> "tuple[Any, dict[str, Any]]":
        """The manifest, and the upload's tensors by the names and in the types that are vetted.

        Raises:
            ArtifactRejected: they can be read in several ways, or in none.
        """

    def afford(self, manifest: Any, *, budget: Budget) -> None:
        """Refuse a model by its cost, from the manifest alone and before memory is taken.

        Raises:
            ManifestRejected: `over_budget` or `cost_unknown`; any other error is found again later.
            MissingExtra: a library that is needed to find out is not installed.
        """

    def check(self, manifest: Any, header: Header, *, budget: Budget) -> None:
        """Refuse a manifest that cannot be built, or weights that are not its model's.

        Raises:
            ArtifactRejected: a rule is broken.
            MissingExtra: a library that is needed to tell is not installed.
        """

    def load(self, manifest: Any, tensors: "Mapping[str, Any]") -> Any:
        """The model with these weights, whose names, shapes and dtypes are checked."""

    def read_clean(self, data: bytes, name: str) -> Any:
        """A stored clean set with all its parts; raises CleanSetError."""

    def match(self, manifest: Any, facts: Any) -> None:
        """Refuse a clean set that cannot fit, by its facts alone; raises CleanSetError."""

    def fitted(self, manifest: Any, curated: Any) -> Any:
        """The clean set as the model takes it, of its classes, sizes and elements.

        Raises:
            CleanSetError: it does not fit.
        """

    def measured(self, model: Any, artifact: str, curated: Any, *, seed: int) -> Evidence:
        """How well the model does its task on the hold-out."""

    def with_rates(
        self, item: Evidence, model: Any, curated: Any, triggers: dict[str, bytes], *, seed: int
    ) -> Evidence:
        """`item` with the ASR of each recovered trigger on the hold-out; adds their bytes."""

    def completed(
        self,
        evidence: tuple[Evidence, ...],
        model: Any,
        curated: Any,
        triggers: dict[str, bytes],
        *,
        seed: int,
    ) -> tuple[Evidence, ...]:
        """All evidence of a scan, with what several methods together say; may add triggers."""

    def smoke(self, model: Any, curated: Any) -> bytes:
        """What a publisher compares the serving system's answers with, as canonical JSON."""


def of(modality: Modality) -> Kind:
    """The functions for models of this modality."""
    if modality is Modality.GRAPHS:
        from guard.vetting import _graphs

        return _graphs
    from guard.vetting import _images

    return _images


def fitted(manifest: AnyManifest, curated: Any) -> Any:
    """The clean set as this model takes it.

    Raises:
        CleanSetError: it is of another modality, or as `Kind.fitted`.
    """
    facts = curated.facts
    if facts.modality is not manifest.modality:
        raise CleanSetError(
            f"The model is for {manifest.modality}, clean set {facts.name!r} holds "
            f"{HOLDS[facts.modality]}; name one of {HOLDS[manifest.modality]}.",
            code="cleanset_wrong_kind",
        )
    return of(manifest.modality).fitted(manifest, curated)
