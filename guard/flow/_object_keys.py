"""What a key tells without looking at the object.

Whether to look at all, where its manifest lies, the model's name.
"""

import re

from guard.core.errors import InputError
from guard.core.manifest import MANIFEST_FILE

MAX_KEY_BYTES = 1024  # S3's own limit
_COMPANIONS = re.compile(
    r"(^|/)(README|LICENSE|LICENCE|NOTICE|CHANGELOG|\.gitattributes|\.gitignore)[^/]*$"
    r"|\.(md|rst|txt|json|jsonl|ya?ml|toml|cfg|ini|csv|tsv|log|html?|css|pdf|png|jpe?g|gif|svg|webp|sha256|md5)$",
    re.IGNORECASE,
)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# TorchServe's own API answers under /token: a model whose name holds the word would shadow it.
_RESERVED = "token"


def unusable(bucket: str, key: str, version_id: str | None) -> str:
    """Why an object cannot be spoken about at all; empty where it can."""
    words = (bucket, key, version_id or "")
    # Not printable: control characters, lone surrogates, and marks that reverse or hide text.
    if not all(word.isprintable() for word in words):
        return "The key holds characters that cannot be shown; upload it under a plain name."
    if not key or any(len(word.encode()) > MAX_KEY_BYTES for word in words):
        return (
            f"The key is empty or longer than {MAX_KEY_BYTES} bytes; upload it under a shorter "
            "name."
        )
    return ""


def shown(word: str) -> str:
    """A word of an event as rows hold it.

    Escaped and cut where it could not be stored or shown as it is.
    """
    return (
        word
        if word.isprintable() and len(word) <= MAX_KEY_BYTES
        else repr(word)[1:-1][:MAX_KEY_BYTES]
    )


def not_a_model(key: str) -> str:
    """Why there is nothing to vet under this key, judged by its name; empty where there may be.

    Only names that never hold weights are ignored: what is ignored is never served, whatever it
    holds.
    """
    if key.endswith("/"):
        return "A folder mark holds no model."
    if is_manifest(key):
        return ""
    if _COMPANIONS.search(key):
        return "Documents, pictures and settings beside a model are not vetted."
    return ""


def is_manifest(key: str) -> bool:
    """Whether this is a `config.json`."""
    return key.rpartition("/")[2] == MANIFEST_FILE


def folder(key: str) -> str:
    """The folder of a key with its slash; empty at the top."""
    head, slash, _ = key.rpartition("/")
    return head + slash


def model_name(key: str) -> str:
    """The model's name: the last folder, or the file's stem at the top.

    Lower-case ASCII letters, digits, - and _.

    Every other character becomes a dash, none is mapped to a letter that looks like it.

    Raises:
        InputError: nothing of the name is left.
    """
    path = folder(key).rstrip("/")
    raw = path.rpartition("/")[2] if path else key.rpartition("/")[2].partition(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", raw).lower().lstrip("-_")[:63].rstrip("-_")
    while _RESERVED in name:
        name = name.replace(_RESERVED, "tkn")
    if not _NAME.fullmatch(name):
        raise InputError(
            "The key gives no model name; upload the model into a folder whose name holds letters "
            "a-z or digits.",
            code="no_model_name",
        )
    return name
