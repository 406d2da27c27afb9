"""What an upload is served as: a name that no other key prefix gets.

A path of plain segments is its own name, with `--` between segments. Whatever would be folded, cut
or spelled differently ends in `-_` and a digest of where it lies. Neither `--` nor `-_` stands in a
plain segment, so that two paths never share a name. A template that leaves a part of the path out
may name two prefixes alike: then the first keeps the name (`guard.store.claims`).
"""

import hashlib
import re

from guard.core.errors import InputError
from guard.flow import _object_keys

_SEGMENT = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")
_JOIN, _MARK = "--", "-_"
_MAX = 63
_DIGITS = 16
# TorchServe's own API answers under /token: a model whose name holds the word would shadow it.
_RESERVED = "token"


def prefix_of(key: str) -> str:
    """What a name belongs to: the key's folder with its slash, or at the top the key itself."""
    return _object_keys.folder(key) or key


def served_name(bucket: str, key: str, *, template: str = "{path}", strip: str = "") -> str:
    """The name that an upload asks for: lower-case ASCII letters, digits, `-` and `_`, at most 63.

    Args:
        template: the rule, with `{bucket}`, `{path}` (all folders) and `{folder}` (the last one).
            At the top of a bucket the file's stem stands for the folder.
        strip: folder at the start of the key that is not part of `{path}`, such as `models`.

    Raises:
        InputError: nothing of the folder's name is left.
    """
    folder = _object_keys.folder(key)
    root = strip.strip("/")
    path = (folder.removeprefix(f"{root}/") if root else folder) or folder
    # Of "a//m.pt" the path is "a/": the empty folder is one of its own, and not "a".
    path = path[:-1] if folder else key.rpartition(".")[0] or key.partition(".")[0]
    segments = path.split("/")
    last = next((one for one in reversed(segments) if one), "")
    if not _folded(last):
        raise InputError(
            "The key gives no model name; upload the model into a folder whose name holds letters "
            "a-z or digits.",
            code="no_model_name",
        )
    fields = {"{folder}": last, "{bucket}": bucket, "{path}": path}
    text = re.sub(r"\{(folder|bucket|path)\}", lambda found: fields[found[0]], template)
    parts = text.split("/")
    name = _JOIN.join(parts)
    if all(_plain(part) for part in parts) and len(name) <= _MAX and _RESERVED not in name:
        return name
    where = f"{bucket}\0{prefix_of(key)}" if "{bucket}" in template else prefix_of(key)
    digest = hashlib.sha256(where.encode()).hexdigest()[:_DIGITS]
    stub = _JOIN.join(folded for part in parts if (folded := _folded(part)))
    while _RESERVED in stub:
        stub = stub.replace(_RESERVED, "tkn")
    stub = stub[: _MAX - len(_MARK) - _DIGITS].rstrip("-_")
    return f"{stub}{_MARK}{digest}"


def _plain(segment: str) -> bool:
    return bool(_SEGMENT.fullmatch(segment) and _JOIN not in segment and _MARK not in segment)


def _folded(segment: str) -> str:
    """What is left of a segment; no letter is mapped to one that only looks like it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", segment).lower().strip("-_")
