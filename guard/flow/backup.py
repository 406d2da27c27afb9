"""Make a back-up of everything that a lost machine would take along, and restore it.

The order matters. Each checkpoint is written behind the rows that it counts, so it is read before
them: the database of a back-up is never older than its checkpoints. Blobs come last, since one too
many is harmless and a missing one is not.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from guard.attest import inventory
from guard.attest.checkpoint import read_trail
from guard.attest.keys import Signer, TrustedKeys
from guard.blobs.folder import FolderBlobs
from guard.core.errors import InputError, IntegrityMismatch
from guard.core.roles import Act
from guard.flow._backup_folder import (
    BLOB_FOLDER,
    BLOBS,
    CHECKPOINTS,
    DATABASE,
    HOOKS,
    SIGNING,
    TRUSTED,
    BackupFolder,
    digests_in,
)
from guard.flow._checkpoints import CheckpointStore, store_of
from guard.flow._seal import settle
from guard.flow.context import Guard
from guard.flow.principals import Principal
from guard.notify import sealing
from guard.store import acts, dump, migrate
from guard.store.session import transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.blobs import Blobs


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What came back: rows by table, whether the keys did, and what did not (blobs, by digest).

    `behind` is whether the ledger is older than checkpoints that were there before.
    """

    facts: inventory.Facts
    rows: int
    signing_key: bool
    missing: tuple[str, ...]
    behind: bool


def create(
    guard: Guard, folder: Path, release: str, *, blobs: bool = False, signing_key: bool = False
) -> tuple[str, inventory.Facts]:
    """Write a back-up into a new folder; the id of the key that signed it, and what it holds.

    The service may go on meanwhile.

    Args:
        release: this release's version.
        blobs: copy the blobs too; otherwise they are only named.
        signing_key: copy the private key too, and the key of destinations where it is here.

    Raises:
        InputError: the folder is not empty, the schema is not this release's, or this process has
            no trusted signing key.
        Unavailable: the database, the blobs or the folder cannot be used.
    """
    found = migrate.current_of(guard.engine)
    if found != migrate.head():
        raise InputError(
            f"The schema is at {found or 'nothing'}, this release's at {migrate.head()}; make the "
            "back-up with the release that runs, or upgrade first.",
            code="schema_differs",
        )
    signer, settings = guard.signer, guard.settings
    out = BackupFolder(folder)
    out.make()
    data = store_of(guard).read()
    trail = read_trail(data, guard.trusted)
    out.write(CHECKPOINTS, data[: trail.size])
    out.write(TRUSTED, settings.trusted_keys_file.read_bytes())
    if signing_key:
        out.write(SIGNING, settings.signing_key_file.read_bytes())
        if settings.hooks_key_file.is_file():
            out.write(HOOKS, settings.hooks_key_file.read_bytes())
    counts, named = Counter[str](), set[str]()
    out.write_lines(DATABASE, _dumped(guard, counts, named, everything=blobs))
    there = sorted(digest for digest in named if guard.blobs.has(digest))
    if blobs:
        _copy(guard.blobs, folder / BLOB_FOLDER, there)
    out.write(BLOBS, "".join(f"{digest}\n" for digest in there).encode())
    facts = inventory.Facts(
        made_at=guard.now(),
        release=release,
        schema=migrate.head(),
        checkpoint=trail.newest.number if trail.newest else 0,
        tables=dict(counts),
        blobs=len(there),
    )
    out.seal(inventory.sign(out.digests, facts, signer))
    return signer.key_id, facts


def restore(
    guard: Guard,
    folder: Path,
    by: Callable[[], Principal],
    *,
    key: str = "",
    older: bool = False,
) -> Restored:
    """Bring a back-up into a place that has no database, and upgrade it to this release.

    Keys and checkpoints that are there already stay. Nobody is asked for a token, since the
    database that knows tokens is not there yet; the act is recorded in the one that comes back.

    Args:
        by: who does it, for the record; called once the database is back.
        key: the id of the key that must have signed, where no trusted keys are here any more.
        older: take a back-up that is behind the checkpoints that are here.

    Raises:
        InputError: the folder is no back-up, nobody is trusted, the database is not empty, or the
            back-up is older than the checkpoints.
        IntegrityMismatch: the back-up was changed, or a key that is not trusted signed it.
        Unavailable: the database, the blobs or the folder cannot be used.
    """
    source = BackupFolder(folder)
    files, facts = inventory.read(source.envelope(), _trusted(guard, source, key))
    source.check(files)
    if migrate.current_of(guard.engine) is not None:
        raise InputError(
            "The database is not empty, and a back-up never replaces one; name an empty one in "
            "GUARD_DATABASE_URL.",
            code="restore_not_empty",
        )
    store = store_of(guard)
    behind = _behind(store, source, facts)
    if behind and not older:
        raise InputError(
            f"The back-up was made at checkpoint {facts.checkpoint}, and newer ones are here: what "
            "was decided and revoked since would be lost. Take a newer back-up, or --older and "
            "then `guard ledger accept`.",
            code="restore_older",
        )
    counts: dict[str, int] = {}

    def fill(session: "Session") -> None:
        counts.update(dump.load(session, source.read_lines(DATABASE)))
        if {name: rows for name, rows in counts.items() if rows} != facts.tables:
            raise IntegrityMismatch("The dump has other rows than it had.", code="backup_changed")

    migrate.upgrade(guard.settings.database_url, facts.schema, then=fill)
    migrate.upgrade(guard.settings.database_url)
    brought = _put_files(guard, store, source, behind=behind)
    missing = _put_blobs(guard.blobs, source)
    _record(guard, by(), facts)
    return Restored(
        facts=facts,
        rows=sum(counts.values()),
        signing_key=brought,
        missing=tuple(missing),
        behind=behind,
    )


def _dumped(
    guard: Guard, counts: Counter[str], named: set[str], *, everything: bool
) -> Iterator[bytes]:
    """The lines of the database; the digests of blobs in them are added to `named`."""
    table = ""

    def count(name: str) -> None:
        nonlocal table
        table = name
        counts[name] += 1

    for line in dump.lines(guard.engine, count):
        if everything or table in {"artifacts", "cleansets"}:
            named.update(digests_in(line))
        yield line


def _copy(blobs: "Blobs", folder: Path, digests: list[str]) -> None:
    copies = FolderBlobs(folder)
    for digest in digests:
        with blobs.open(digest) as file:
            copies.put(iter(lambda file=file: file.read(1 << 20), b""))  # type: ignore[misc]


def _trusted(guard: Guard, source: BackupFolder, key: str) -> TrustedKeys:
    """Whose signature counts: the keys that are trusted here, or the one that was named."""
    here = TrustedKeys.load(guard.settings.trusted_keys_file)
    if here.keys:
        return here
    if not key:
        raise InputError(
            "No key is trusted here, so nothing shows whose back-up this is; name the key that "
            "`guard backup create` printed: --key ID.",
            code="backup_untrusted",
        )
    known = TrustedKeys.load(source.path / TRUSTED).keys
    return TrustedKeys({key_id: raw for key_id, raw in known.items() if key_id == key})


def _behind(store: CheckpointStore, source: BackupFolder, facts: inventory.Facts) -> bool:
    """Whether checkpoints that are here are newer than the back-up's.

    Raises:
        InputError: they are of another ledger.
    """
    here, theirs = store.read(), source.read(CHECKPOINTS)
    if not theirs.startswith(here) and not here.startswith(theirs):
        raise InputError(
            f"The checkpoints at {store.path} are of another ledger than the back-up's; move them "
            "away if they are not yours.",
            code="restore_other_ledger",
        )
    after = facts.checkpoint
    elsewhere = [copy.newest(after) for copy in store.copies]
    return len(here) > len(theirs) or any(_number(line) > after for line in elsewhere if line)


def _number(line: bytes) -> int:
    """The number of a checkpoint, whoever signed it: a forged one can only refuse a back-up."""
    newest = read_trail(line + b"\n", TrustedKeys({})).newest
    return newest.number if newest else 0


def _put_files(guard: Guard, store: CheckpointStore, source: BackupFolder, *, behind: bool) -> bool:
    """Write keys and checkpoints where there are none; whether the private key came along."""
    settings = guard.settings
    if not TrustedKeys.load(settings.trusted_keys_file).keys:
        TrustedKeys.load(source.path / TRUSTED).save(settings.trusted_keys_file)
    with store.writing():
        there, theirs = store.read(), source.read(CHECKPOINTS)
        if not behind and there != theirs:
            store.append(theirs[len(there) :].removesuffix(b"\n"), len(there))
    hooks = source.read(HOOKS)
    if hooks:
        sealing.bring_back(settings.hooks_key_file, hooks)
    pem, place = source.read(SIGNING), settings.signing_key_file
    if not pem or place.exists():
        return False
    Signer.load(source.path / SIGNING).save(place)
    return True


def _put_blobs(blobs: "Blobs", source: BackupFolder) -> list[str]:
    """Bring back the blobs that lie in the back-up; the digests of those that are nowhere."""
    wanted, folder = source.read(BLOBS).decode().split(), source.path / BLOB_FOLDER
    copies = FolderBlobs(folder) if folder.is_dir() else None
    missing = []
    for digest in wanted:
        if copies is not None and copies.has(digest):
            with copies.open(digest) as file:
                blobs.put(iter(lambda file=file: file.read(1 << 20), b""))  # type: ignore[misc]
        elif not blobs.has(digest):
            missing.append(digest)
    return missing


def _record(guard: Guard, by: Principal, facts: inventory.Facts) -> None:
    with transaction(guard.engine) as session:
        acts.add(
            session,
            act=Act.RESTORE_DATABASE,
            principal=by.name,
            role=str(by.role or ""),
            authenticated=by.authenticated,
            token_id=by.token_id,
            subject=facts.schema,
            detail=f"the back-up of {facts.made_at.isoformat()} by release {facts.release}",
            facts={"checkpoint": facts.checkpoint},
            now=guard.now(),
        )
    settle(guard)
