"""Which keys count: those of the file of trusted keys, without any that an act distrusts.

The act comes first and the file follows it. So a process that dies in between leaves a key that
counts no more, whatever the file says; `complete` brings the file in line. Hosts that read only the
file, as a serving host does, wait for that.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from guard.attest import acts, dsse
from guard.attest.keys import TrustedKeys
from guard.core.digests import sha256
from guard.core.errors import IntegrityMismatch
from guard.flow._checkpoints import store_of
from guard.store import ledger_acts
from guard.store.session import reading

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from guard.flow.context import Guard
    from guard.store.rows import LedgerActRow

log = structlog.get_logger()


def in_force(engine: "Engine", path: Path) -> TrustedKeys:
    """The public keys whose signatures count now.

    Args:
        path: the file of trusted keys.

    Raises:
        InputError: as `TrustedKeys.load`.
        Unavailable: the database cannot be read.
    """
    file = TrustedKeys.load(path)
    if not file.keys:
        return file  # no act adds a key to the file
    with reading(engine) as session:
        rows = ledger_acts.about_keys(session)
    lost = distrusted(rows, file)
    return TrustedKeys({key_id: raw for key_id, raw in file.keys.items() if key_id not in lost})


def distrusted(rows: "Iterable[LedgerActRow]", file: TrustedKeys) -> frozenset[str]:
    """The keys whose newest act distrusts them.

    An act counts if a key signed it that counted then: one that the file holds or that an earlier
    act named, and that no act had distrusted. Otherwise whoever can write to the database could
    switch the guard off, or a key that leaked could bring itself back.

    Args:
        rows: the acts about keys, the oldest first.
    """
    rows = list(rows)
    if not any(row.kind == "distrust" for row in rows):
        return frozenset()  # no signature need be checked
    known, lost = dict(file.keys), set[str]()
    for number, row in enumerate(rows):
        try:
            act = acts.read_act(dsse.payload(row.envelope))
            named = _named(act.keys)
            if act.kind == "open" and number == 0:
                known |= named  # the keys that were trusted before any act said so
            counted = {key_id: raw for key_id, raw in known.items() if key_id not in lost}
            dsse.verify(row.envelope, TrustedKeys(counted))
        except IntegrityMismatch:
            continue  # `guard verify` names it
        known |= named
        if act.kind == "distrust":
            lost.add(act.subject)
        elif act.kind == "trust":
            lost -= named.keys()
    return frozenset(lost)


def gone(guard: "Guard") -> frozenset[str]:
    """The keys whose newest act distrusts them, whether or not the file still holds them."""
    with reading(guard.engine) as session:
        rows = ledger_acts.about_keys(session)
    return distrusted(rows, TrustedKeys.load(guard.settings.trusted_keys_file))


def left_over(guard: "Guard") -> list[str]:
    """The keys that the file still holds though an act distrusts them."""
    file = TrustedKeys.load(guard.settings.trusted_keys_file)
    return sorted(gone(guard) & file.keys.keys())


def complete(guard: "Guard") -> None:
    """Take out of the file what an act distrusts.

    Raises:
        InputError: the file cannot be written.
        Unavailable: the database or the folder of the lock cannot be used.
    """
    if left := left_over(guard):
        change(guard, lambda keys: {k: raw for k, raw in keys.items() if k not in left})
        log.warning("distrusted_keys_removed", keys=left)


def change(guard: "Guard", edit: Callable[[Mapping[str, bytes]], Mapping[str, bytes]]) -> None:
    """Rewrite the file of trusted keys, one process at a time.

    A file that holds them already is not touched: where it is mounted read-only (a ConfigMap of
    Kubernetes), a person changes it first and the act follows.

    Raises:
        InputError: the file cannot be read or written.
        Unavailable: the folder of the lock cannot be used.
    """
    path = guard.settings.trusted_keys_file
    with store_of(guard).writing():
        before = TrustedKeys.load(path)
        after = TrustedKeys(edit(before.keys))
        if after != before:
            after.save(path)


def _named(keys: Mapping[str, object]) -> dict[str, bytes]:
    """The public keys that an act makes trusted.

    Raises:
        IntegrityMismatch: one of them is no key, or not the one of its id.
    """
    try:
        found = {key_id: bytes.fromhex(str(raw)) for key_id, raw in keys.items()}
    except ValueError as error:
        raise IntegrityMismatch("The act names no keys.", code="bad_statement") from error
    if any(sha256(raw) != key_id for key_id, raw in found.items()):
        raise IntegrityMismatch("The act names a key by another id.", code="bad_statement")
    return found
