"""Recognise a file's format by its bytes; exactly one format may claim it."""

from guard.core.contracts import Format
from guard.formats import FORMATS
from guard.formats._bytes import HEAD_BYTES, UPLOAD_INSTEAD, reject, show


def choose(head: bytes, name: str) -> Format:
    """The one format that claims a file with these first 4096 bytes.

    Raises:
        ArtifactRejected: `empty_file`, `unknown_format` (none claims it) or `polyglot` (several
            do).
    """
    if not head:
        raise reject("empty_file", "The file is empty; upload it again.")
    claiming = [kind() for kind in FORMATS.all() if kind().claims(head[:HEAD_BYTES], name)]
    if not claiming:
        raise reject(
            "unknown_format", f"The format of {show(name)} is not known; {UPLOAD_INSTEAD}."
        )
    if len(claiming) > 1:
        kinds = ", ".join(type(kind).__name__ for kind in claiming)
        raise reject(
            "polyglot",
            f"The file can be read in several ways ({kinds}); write it again with safetensors.",
        )
    return claiming[0]
