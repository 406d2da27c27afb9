"""What all formats share: refusing by name, and reading a file within a budget."""

import os
from typing import BinaryIO

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected

HEAD_BYTES = 4096
CHUNK_BYTES = 1 << 20
UPLOAD_INSTEAD = "upload model.safetensors with its config.json instead"


def reject(code: str, sentence: str) -> ArtifactRejected:
    """The error for a broken rule called `code`."""
    return ArtifactRejected(sentence, code=code)


def show(text: str, limit: int = 80) -> str:
    """`text` from an untrusted file as a short ASCII token, safe in logs and terminals."""
    return ascii(text if len(text) <= limit else f"{text[:limit]}...")


def size_of(file: BinaryIO, budget: Budget) -> int:
    """The file's size in bytes.

    Raises:
        ArtifactRejected: it is larger than `budget.file_bytes`.
    """
    size = file.seek(0, os.SEEK_END)
    if size > budget.file_bytes:
        raise reject(
            "file_too_large", f"The file has {size} bytes; at most {budget.file_bytes} are vetted."
        )
    return size


def read_at(file: BinaryIO, offset: int, count: int) -> bytearray:
    """Exactly `count` bytes from `offset`.

    The caller has compared `count` with the size of the file.

    Raises:
        ArtifactRejected: the file ends earlier.
    """
    file.seek(offset)
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        chunk = file.read(min(CHUNK_BYTES, count - done))
        if not chunk:
            raise reject(
                "file_truncated", f"The file ends {count - done} bytes too early; upload it again."
            )
        view[done : done + len(chunk)] = chunk
        done += len(chunk)
    return data
