"""What can be derived from an object's key alone, without looking at the object.

Whether to look at all, where its manifest lies.
"""

from guard.core.companions import is_companion
from guard.core.manifest import MANIFEST_FILE
from guard.core.shards import is_index

MAX_KEY_BYTES = 1024  # S3's own limit


def unusable(bucket: str, key: str, version_id: str | None) -> str:
    """Why an object cannot be recorded under this key; empty where it can."""
    parts = (bucket, key, version_id or "")
    # Not printable: control characters, lone surrogates, and marks that reverse or hide text.
    if not all(part.isprintable() for part in parts):
        return "The key contains characters that cannot be shown; upload it under a plain name."
    if not key or any(len(part.encode()) > MAX_KEY_BYTES for part in parts):
        return (
            f"The key is empty or longer than {MAX_KEY_BYTES} bytes; upload it under a shorter "
            "name."
        )
    return ""


def shown(text: str) -> str:
    """A string of an event, escaped and cut where it could not be stored or shown as it is."""
    return (
        text
        if text.isprintable() and len(text) <= MAX_KEY_BYTES
        else repr(text)[1:-1][:MAX_KEY_BYTES]
    )


def not_a_model(key: str) -> str:
    """Why there is nothing to vet under this key, judged by its name; empty where there may be.

    Only names under which nobody keeps weights are ignored. An ignored object is never served,
    whatever it contains.
    """
    if key.endswith("/"):
        return "The object is a folder mark; it contains no model."
    if is_manifest(key) or is_index(key):
        return ""
    if is_companion(key):
        return "Documents, images and settings beside a model are not vetted."
    return ""


def is_manifest(key: str) -> bool:
    """Whether this is a `config.json`."""
    return key.rpartition("/")[2] == MANIFEST_FILE


def folder(key: str) -> str:
    """The folder of a key, with its trailing slash; empty at the top level of the bucket."""
    head, slash, _ = key.rpartition("/")
    return head + slash
