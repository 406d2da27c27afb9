"""Packed archives other than zip (tar, gzip, bzip2, xz, zstd, 7z, rar); recognised and refused."""

from guard.formats._refused import Refused

_MAGICS = (
    b"\x1f\x8b\x08",
    b"BZh",
    b"\xfd7zXZ\x00",
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
)
_TAR_AT, _TAR = 257, b"ustar"


class PackedArchive(Refused):
    """A packed archive is never opened, so it cannot unfold into more than its bytes."""

    code = "packed_archive"
    thing = "a packed archive"

    def claims(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the bytes are enough
        return head.startswith(_MAGICS) or head[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR
