"""Publishers bring an approved artifact to serving; one file per publisher."""

from collections.abc import Mapping
from typing import Any, BinaryIO

from guard.core.contracts import Publisher
from guard.core.digests import canonical_json
from guard.core.shelf import Shelf
from guard.publishers._weights import manifest_of

PUBLISHERS: Shelf[Publisher] = Shelf("guard.publishers")
#: The files of a published model that is carried elsewhere.
WEIGHTS, CONFIG, RELEASE = "weights.safetensors", "config.json", "release.dsse.json"
SIGNATURE = "model.sig"


def carried(weights: BinaryIO, release: Mapping[str, Any]) -> dict[str, bytes]:
    """The files beside the weights of a published model: its configuration and its release.

    Raises:
        IntegrityMismatch: `weights` is no canonical file.
    """
    return {CONFIG: canonical_json(manifest_of(weights)), RELEASE: canonical_json(dict(release))}
