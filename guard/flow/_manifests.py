"""The `config.json` beside an object, with the preprocessor's file that belongs to it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from guard.core import preprocessor
from guard.core.errors import ArtifactRejected
from guard.core.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES
from guard.core.transformers_configs import lacks_preprocessor
from guard.flow import _object_keys

if TYPE_CHECKING:
    from guard.events.bucket import Bucket


@dataclass(frozen=True)
class Found:
    """The text, unchecked, and the pin of its version.

    `whole` is False where a file that belongs to it may still be on its way.
    """

    text: str
    pin: str
    whole: bool


def beside(bucket: "Bucket", key: str) -> Found | None:
    """What lies beside `key`; None where there is no `config.json`.

    Raises:
        ArtifactRejected: `manifest_no_json` or `object_too_large`.
    """
    folder = _object_keys.folder(key)
    found = bucket.read_small(folder + MANIFEST_FILE, MAX_MANIFEST_BYTES)
    if found is None:
        return None
    data, facts = found
    whole = True
    if lacks_preprocessor(data):
        name = folder + preprocessor.PREPROCESSOR_FILE
        other = bucket.read_small(name, preprocessor.MAX_PREPROCESSOR_BYTES)
        whole = other is not None
        data = preprocessor.joined(data, other and other[0])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ArtifactRejected(
            f"{MANIFEST_FILE} is not UTF-8 text; upload it again.", code="manifest_no_json"
        )
    return Found(text, facts.pin, whole)
