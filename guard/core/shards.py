"""A model that was saved in several files, as the Hugging Face Hub names them.

`model.safetensors.index.json` lists the tensors of `model-00001-of-00002.safetensors` and so on,
`pytorch_model.bin.index.json` those of `pytorch_model-00001-of-00002.bin`. Uploads are one file
each: an index and its shards are packed into one, byte by byte, and that file is read by
`guard.formats.sharded_safetensors` or `guard.formats.sharded_pytorch`.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from guard.core.digests import canonical_json

_INDEX = re.compile(r"\.(?P<suffix>safetensors|bin|pt|pth|ckpt)\.index\.json\Z")
_SAFE = "safetensors"
MAX_SHARDS = 1000
MAGIC = b"GUARD-SHARDS-1\r\n"
#: Of shards that are PyTorch checkpoints.
PICKLED_MAGIC = b"GUARD-SHARDS-P\r\n"
LENGTH_BYTES = 8
_SHARD = re.compile(
    r"(?P<stem>[A-Za-z0-9_.+=, -]+)-\d{5}-of-\d{5}"
    r"\.(?P<suffix>safetensors|bin|pt|pth|ckpt)",
    re.ASCII,
)


@dataclass(frozen=True)
class Shard:
    """What the name of one shard says; `index` is the name of the file that lists its tensors."""

    index: str
    safe: bool  # whether it is named as safetensors


def shard(name: str) -> Shard | None:
    """The shard that a file name without folders names; None where it names none."""
    found = _SHARD.fullmatch(name)
    if found is None:
        return None
    return Shard(f"{found['stem']}.{found['suffix']}.index.json", found["suffix"] == _SAFE)


def is_index(path: str) -> bool:
    """Whether a file of this name lists shards."""
    return _INDEX.search(path) is not None


def stem(index: str) -> str:
    """What the names or keys of an index's shards start with."""
    found = _INDEX.search(index)
    return (index if found is None else index[: found.start()]) + "-"


def opening(index: str, index_bytes: int, shards: Sequence[tuple[str, int]]) -> bytes:
    """The start of a packed file; the index's bytes and those of the shards follow in order.

    Args:
        index: the name of the index.
        index_bytes: its size.
        shards: name without folders and size in bytes of each shard.
    """
    listed = [[name, size] for name, size in shards]
    text = canonical_json({"index": index_bytes, "shards": listed})
    found = _INDEX.search(index)
    safe = found is None or found["suffix"] == _SAFE
    return (MAGIC if safe else PICKLED_MAGIC) + struct.pack("<Q", len(text)) + text
