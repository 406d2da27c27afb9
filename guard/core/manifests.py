"""Manifests of every modality, told apart by `task`."""

from typing import Any

from guard.core.graph_manifest import GraphManifest
from guard.core.manifest import Manifest, decoded
from guard.core.modality import Modality, modality_of

AnyManifest = Manifest | GraphManifest


def parse_manifest(data: bytes) -> AnyManifest:
    """Read a `config.json` of any modality.

    Raises:
        ManifestRejected: it is no JSON object, names another task, or a value breaks a rule.
    """
    return manifest_from(decoded(data))


def manifest_from(data: Any) -> AnyManifest:
    """Read a decoded `config.json` of any modality; raises as `parse_manifest`."""
    if isinstance(data, dict) and modality_of(data) is Modality.GRAPHS:
        return GraphManifest.from_dict(data)
    return Manifest.from_dict(data)
