"""Inspect zip archives without unpacking: member list, kind, and strict rules for checkpoints.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT (sections 4.3.7, 4.3.12,
4.3.16).
"""

import re
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected
from guard.formats._bytes import UPLOAD_INSTEAD, read_at, reject, show, size_of

_LOCAL, _CENTRAL, _END, _LOCATOR, _END64 = (
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"PK\x06\x07",
    b"PK\x06\x06",
)
MAGICS = (_LOCAL, _END, b"PK\x07\x08")
LOCAL_BYTES, END_BYTES, LOCATOR_BYTES = 30, 22, 20
END64_BYTES = 56 + LOCATOR_BYTES + END_BYTES
MAX_COMMENT_BYTES = 65535
MAX_GAP_BYTES = 24  # a data descriptor with 64-bit sizes
_ENCRYPTED = 1
#: How files of weights in a TorchServe archive end, and how many of them a sentence names.
_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".onnx", ".pkl")
_SHOWN = 5
_UTF8 = 0x800  # without it, zipfile decodes names as cp437
# The folder is named after the file (`epoch=3-step=100`), so it may hold what a file name may.
_NAME = re.compile(r"[^/\\:]+(?:/[A-Za-z0-9_.-]+)*")


@dataclass(frozen=True)
class Member:
    """One stored file: its bytes are `size` bytes from `start`."""

    name: str
    start: int
    size: int


def has_end_record(file: BinaryIO, size: int) -> bool:
    """Whether a zip reader, which starts at the end, could read the file as an archive."""
    base = max(0, size - END_BYTES - MAX_COMMENT_BYTES)
    tail = bytes(read_at(file, base, size - base))
    position = tail.rfind(_END)
    while position >= 0:
        record = tail[position : position + END_BYTES]
        if len(record) == END_BYTES and _leads_somewhere(file, tail, base, position):
            return True
        position = tail.rfind(_END, 0, position)
    return False


def _leads_somewhere(file: BinaryIO, tail: bytes, base: int, position: int) -> bool:
    directory, _, comment = struct.unpack_from("<IIH", tail, position + 12)
    start = base + position - directory
    return (
        position + END_BYTES + comment == len(tail)
        or tail[max(0, position - LOCATOR_BYTES) : position].startswith(_LOCATOR)
        or (start >= 0 and read_at(file, start, 4) == _CENTRAL)
    )


def _end(file: BinaryIO, budget: Budget) -> tuple[int, int, int]:
    """The number of members, and the size and offset of the member list.

    The list must reach to the records that end the archive.
    """
    size = size_of(file, budget)
    tail = bytes(read_at(file, max(0, size - END64_BYTES), min(size, END64_BYTES)))
    end = tail[-END_BYTES:]
    if len(end) < END_BYTES or end[:4] != _END or end[-2:] != b"\0\0":
        raise reject(
            "zip_broken",
            f"The zip archive is cut off or something is attached to it; {UPLOAD_INSTEAD}.",
        )
    entries, listing, offset = struct.unpack("<HII", end[10:20])
    records = END_BYTES
    if tail[-END_BYTES - LOCATOR_BYTES :].startswith(_LOCATOR):
        # torch.save always writes the 64-bit record too. Both must agree: readers differ in which
        # they take.
        records = END64_BYTES
        if (
            len(tail) < records
            or tail[:4] != _END64
            or struct.unpack("<QQQ", tail[32:56]) != (entries, listing, offset)
        ):
            raise reject(
                "zip_broken", f"The zip archive's two end records differ; {UPLOAD_INSTEAD}."
            )
    if offset + listing + records != size:
        raise reject(
            "zip_gap", f"The archive holds bytes that belong to no member; {UPLOAD_INSTEAD}."
        )
    return entries, listing, offset


def directory(file: BinaryIO, *, budget: Budget) -> list[zipfile.ZipInfo]:
    """The archive's member list, in the order of the bytes; nothing is decompressed.

    Raises:
        ArtifactRejected: the archive is broken, or its list is over budget.
    """
    entries, listing, _ = _end(file, budget)
    if entries > budget.tensors + 16 or listing > budget.header_bytes:
        raise reject(
            "zip_too_many_members",
            f"The zip archive lists {entries} files; the limit is {budget.tensors}.",
        )
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        OSError,
        struct.error,
        EOFError,
    ) as error:
        raise reject(
            "zip_broken", f"The zip archive's member list is damaged; {UPLOAD_INSTEAD}."
        ) from error
    if len(infos) != entries:
        raise reject(
            "zip_broken",
            f"The zip archive lists another number of files than it declares; {UPLOAD_INSTEAD}.",
        )
    return sorted(infos, key=lambda info: info.header_offset)


def refusal(names: Sequence[str]) -> ArtifactRejected | None:
    """The error for a known kind of archive that is not vetted, or None for any other archive."""
    parts = [name.split("/") for name in names]
    tops = {part[0] for part in parts}
    inner = {"/".join(part[1:]) for part in parts}
    if "MAR-INF" in tops:
        return reject(
            "torchserve_archive",
            f"This is a TorchServe archive, whose files run as code where it is served; "
            f"{_weights_inside(names)}the guard builds its own archive: {UPLOAD_INSTEAD}.",
        )
    if inner & {"archive_format", "archive_version"} or "serialized_exported_program.json" in {
        *names,
        *inner,
    }:
        return reject(
            "exported_program",
            f"This is a torch.export program, which carries a graph; {UPLOAD_INSTEAD}.",
        )
    if any(part[1:2] == ["code"] for part in parts) or "constants.pkl" in inner:
        return reject(
            "torchscript",
            "This is a TorchScript program: it computes what its own code says, whatever network "
            f"is vetted in its place; {UPLOAD_INSTEAD}.",
        )
    if any(".data" in part and part[-1] == "extern_modules" for part in parts):
        return reject(
            "torch_package",
            f"This is a torch.package, which carries source code; {UPLOAD_INSTEAD}.",
        )
    if {"config.json", "metadata.json"} <= tops:
        return reject(
            "keras_archive", f"This is a Keras model; build it in PyTorch and {UPLOAD_INSTEAD}."
        )
    if names and all(name.endswith(".npy") for name in names):
        return reject("numpy_archive", f"This is a NumPy archive, not a model; {UPLOAD_INSTEAD}.")
    return None


def _weights_inside(names: Sequence[str]) -> str:
    """What in an archive may be weights, for a sentence; empty where nothing is."""
    found = [name for name in names if name.lower().endswith(_WEIGHTS)]
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"inside are {', '.join(map(show, found[:_SHOWN]))}{more}; "


def stored_members(file: BinaryIO, *, budget: Budget) -> list[Member]:
    """The members of an archive that holds only plain, uncompressed, unencrypted files.

    Each member occurs once, and no bytes lie between them. torch.save writes without compression,
    which also leaves no room for a decompression bomb.

    Raises:
        ArtifactRejected: a rule is broken, or the archive is of a known kind that is not vetted.
    """
    infos = directory(file, budget=budget)
    known = refusal([info.filename for info in infos])
    if known is not None:
        raise known
    members: list[Member] = []
    position, seen = 0, set()
    for info in infos:
        if not _harmless(info.filename) or info.filename in seen:
            raise reject(
                "zip_bad_name",
                f"The archive's member {show(info.filename)} has an unsafe or repeated name.",
            )
        seen.add(info.filename)
        if info.flag_bits & _ENCRYPTED:
            raise reject(
                "zip_encrypted",
                f"The archive's member {show(info.filename)} is encrypted; {UPLOAD_INSTEAD}.",
            )
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            sentence = (
                f"The archive's member {show(info.filename)} is compressed; {UPLOAD_INSTEAD}."
            )
            raise reject("zip_compressed", sentence)
        _check_gap(position, info.header_offset)
        start = _data_start(file, info)
        position = start + info.file_size
        members.append(Member(info.filename, start, info.file_size))
    _check_gap(position, _end(file, budget)[2])
    return members


def _harmless(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and ".." not in name and name.isprintable()


def _check_gap(position: int, following: int) -> None:
    if following < position:
        raise reject("zip_overlap", f"Two of the archive's members share bytes; {UPLOAD_INSTEAD}.")
    if following - position > (MAX_GAP_BYTES if position else 0):
        raise reject(
            "zip_gap", f"The archive holds bytes that belong to no member; {UPLOAD_INSTEAD}."
        )


def _data_start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the member's bytes start, once its own header agrees with the list."""
    header = bytes(read_at(file, info.header_offset, LOCAL_BYTES))
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    name = bytes(read_at(file, info.header_offset + LOCAL_BYTES, name_length))
    method = struct.unpack("<H", header[8:10])[0]
    if (
        header[:4] != _LOCAL
        or method != zipfile.ZIP_STORED
        or name != info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
    ):
        raise reject(
            "zip_local_mismatch",
            f"The archive lists {show(info.filename)} but holds something else there.",
        )
    return info.header_offset + LOCAL_BYTES + int(name_length) + int(extra_length)
