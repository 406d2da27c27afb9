"""The archive for TorchServe: three files of data, no code, the same bytes each time.

The handler is named in the manifest and installed on the serving host, so no Python code travels
with a model. Format: https://github.com/pytorch/serve/blob/master/model-archiver/README.md
"""

import json
import re
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from guard.attest import dsse
from guard.core.digests import canonical_json
from guard.core.errors import InputError, IntegrityMismatch
from guard.publishers._weights import Hashes, copy_verified, replace_durably

HANDLER = "guard.serving.handler"
WEIGHTS = "weights.safetensors"
RELEASE = "release.dsse.json"
ARCHIVE_MANIFEST = "MAR-INF/MANIFEST.json"
MEMBERS = frozenset({WEIGHTS, RELEASE, ARCHIVE_MANIFEST})
DRAFT = ".incoming-"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can store
_MAX_SMALL_BYTES = 1 << 20

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_VERSION = re.compile(r"[0-9a-z][0-9a-z._-]{0,31}")
_FILE = re.compile(r"[a-z0-9][a-z0-9._-]*-[0-9a-f]{16}\.mar")
_RESERVED_VERSIONS = frozenset({"all", "default"})


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One archive in the model store; `file` is a bare name with 16 digits of its own digest."""

    file: str
    digest: str


def check_names(name: str, version: str) -> None:
    """Refuse names that TorchServe would misunderstand.

    TorchServe validates nothing: it registers an archive named `../x`, which can then not be
    removed, and treats any management request that holds `/token` as one for its key service.

    Raises:
        InputError: the name or the version breaks the grammar.
    """
    if not _NAME.fullmatch(name) or "token" in name or ".." in name:
        raise InputError(
            f"{name!r} cannot be the name of a served model; use 1 to 63 of a-z, 0-9, '.', '_' "
            "and '-', without 'token' or '..' in it.",
            code="bad_model_name",
        )
    if (
        not _VERSION.fullmatch(version)
        or "token" in version
        or ".." in version
        or version in _RESERVED_VERSIONS
    ):
        raise InputError(
            f"{version!r} cannot be the version of a served model; use 1 to 32 of a-z, 0-9, '.', "
            "'_' and '-', without 'token' or '..' in it, and not 'all' or 'default'.",
            code="bad_model_version",
        )


def write_archive(approved: Any, weights: BinaryIO, store: Path) -> Archive:
    """Build the archive of an `attest.Approved` in the model store; equal input gives equal bytes.

    Raises:
        IntegrityMismatch: the weights are not the approved ones; the store is unchanged.
    """
    draft = store / f"{DRAFT}{uuid.uuid4().hex}"
    try:
        with zipfile.ZipFile(draft, "x", zipfile.ZIP_STORED) as archive:
            archive.writestr(
                _entry(ARCHIVE_MANIFEST), canonical_json(_manifest(approved.name, approved.version))
            )
            archive.writestr(_entry(RELEASE), canonical_json(approved.release_envelope))
            with archive.open(
                _entry(WEIGHTS), "w", force_zip64=_size(weights) > zipfile.ZIP64_LIMIT
            ) as member:
                copy_verified(weights, member, approved.digest)
        digest = Hashes().of(draft)
        file = f"{approved.name}-{approved.version}-{digest[:16]}.mar"
        replace_durably(draft, store / file)
    finally:
        draft.unlink(missing_ok=True)
    return Archive(file=file, digest=digest)


def is_ours(file: str, name: str, version: str) -> bool:
    """Whether a file name is one that `write_archive` gives to this name and version."""
    return (
        _FILE.fullmatch(file) is not None
        and file[: -len("-0123456789abcdef.mar")] == f"{name}-{version}"
    )


def release_in(archive: Path) -> dict[str, Any] | None:
    """The statement inside an archive as plain data, not verified; None if there is none."""
    return payload_of(_json_in(archive, RELEASE))


def names_in(archive: Path) -> tuple[str, str] | None:
    """The name and version that an archive registers as; None where it names none."""
    value = _json_in(archive, ARCHIVE_MANIFEST)
    model = value.get("model") if isinstance(value, dict) else None
    return (
        (str(model.get("modelName")), str(model.get("modelVersion")))
        if isinstance(model, dict)
        else None
    )


def payload_of(envelope: Any) -> dict[str, Any] | None:
    """The statement in a signed envelope, without a check of its signature; None if unreadable.

    That is enough to compare two of the guard's own files; the handler verifies before it serves.
    """
    try:
        return dsse.payload(envelope) if isinstance(envelope, dict) else None
    except IntegrityMismatch:
        return None


def same_release(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Whether two statements release the same artifact until the same time.

    The time of issue does not matter, because a publish that was killed half-way is repeated with a
    newly signed statement.
    """
    return one is not None and other is not None and _undated(one) == _undated(other)


def _json_in(archive: Path, name: str) -> Any:
    try:
        with zipfile.ZipFile(archive) as file, file.open(name) as member:
            return json.loads(member.read(_MAX_SMALL_BYTES))
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile):
        return None


def _undated(statement: dict[str, Any]) -> dict[str, Any]:
    predicate = statement.get("predicate")
    if not isinstance(predicate, dict):
        return statement
    return {
        **statement,
        "predicate": {key: value for key, value in predicate.items() if key != "issued_at"},
    }


def _manifest(name: str, version: str) -> dict[str, Any]:
    return {
        "createdOn": "-",
        "runtime": "python",
        "model": {"modelName": name, "handler": HANDLER, "modelVersion": version},
        "archiverVersion": "0.12.0",
    }


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=_EPOCH)
    entry.create_system = 3  # Unix, wherever the guard runs
    entry.external_attr = 0o100444 << 16
    return entry


def _size(file: IO[bytes]) -> int:
    return file.seek(0, 2)
