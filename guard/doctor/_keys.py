"""Keys and checkpoints: there, readable by one user, and as new as the ledger."""

from datetime import timedelta
from pathlib import Path

from guard.attest.keys import Signer
from guard.core.errors import GuardError, InputError, Unavailable
from guard.doctor._check import (
    OTHERS_WRITE,
    Check,
    Finding,
    Ground,
    failed,
    mode_of,
    ok,
    unknown,
    warning,
)
from guard.flow.keys import trusted_of
from guard.store import ledger, ledger_acts

_OTHERS_READ = 0o077
#: A checkpoint is written right after each verdict and act.
LATE = timedelta(minutes=15)
CHECKPOINTS = "checkpoints.jsonl"
_FIRST = "Mend `database` first."


def signing_key(ground: Ground) -> Finding:
    """Whether the private key is there and nobody else's."""
    path = ground.settings.signing_key_file
    if not path.exists():
        return _without_key(ground, path)
    if mode_of(path) & _OTHERS_READ:
        return failed(
            f"Others than the owner can read {path}.",
            f"chmod 600 {path}, and rotate the key if somebody may have read it.",
        )
    if mode_of(path.parent) & OTHERS_WRITE:
        return failed(f"Others than the owner can replace {path}.", f"chmod go-w {path.parent}")
    try:
        key = Signer.load(path)
        trusted = trusted_of(ground.engine, ground.settings.trusted_keys_file)
    except Unavailable:
        return unknown("Whether the key is trusted stands in the database too.", _FIRST)
    except GuardError as error:
        return failed(error.sentence, "Put the key back, or see key rotation in docs/operating.md.")
    if key.key_id not in trusted.keys:
        return failed(
            f"The signing key {key.key_id[:16]} is not trusted, and nothing that it signs counts.",
            "`guard keys trust`, or set GUARD_SIGNING_KEY_FILE to the right key.",
        )
    return ok("The signing key is trusted, and readable by its owner alone.")


def _without_key(ground: Ground, path: Path) -> Finding:
    try:
        with ground.reading() as session:
            empty = ledger.last(session) is None
    except Unavailable:
        return unknown(f"There is no signing key at {path}.", _FIRST)
    if empty:
        return ok("There is no signing key yet; the first verdict makes it.")
    return warning(
        f"There is no signing key at {path}: no verdict is signed on this host.",
        "Nothing on hosts without the queues control and publish; there, put the key back.",
    )


def trusted_keys(ground: Ground) -> Finding:
    """Whether the file of public keys is whole, and nobody else's to write."""
    path = ground.settings.trusted_keys_file
    if not path.exists():
        try:
            with ground.reading() as session:
                empty = ledger.last(session) is None
        except Unavailable:
            return unknown(f"There is no file {path}.", _FIRST)
        if empty:
            return ok("No key is trusted yet; the first verdict makes one.")
        return failed(
            f"There is no file {path}, and without it no verdict counts.",
            "Put it back from the back-up, or `guard keys trust`.",
        )
    for place in (path, path.parent):
        if mode_of(place) & OTHERS_WRITE:
            return failed(f"Others than the owner can write to {place}.", f"chmod go-w {place}")
    try:
        count = len(trusted_of(ground.engine, path).keys)
    except Unavailable:
        return unknown("Which keys count stands in the database too.", _FIRST)
    except (InputError, GuardError) as error:
        return failed(error.sentence, "Put the file back from the back-up.")
    if not count:
        return failed("No key is trusted.", "`guard keys trust` names the signing key.")
    return ok(f"{count} keys are trusted.")


def checkpoints(ground: Ground) -> Finding:
    """Whether the newest checkpoint is as new as the ledger, and copied elsewhere."""
    settings = ground.settings
    try:
        with ground.reading() as session:
            noted, newest = ledger_acts.last_checkpoint(session), ledger.last(session)
    except Unavailable:
        return unknown("The database does not answer, or has no tables.", _FIRST)
    if newest is None and noted is None:
        return ok("There is nothing to checkpoint yet.")
    if noted is None or (newest is not None and newest.issued_at - noted.at > LATE):
        return failed(
            "The newest verdict has no checkpoint.",
            "See that the process with the signing key runs (queue watch), and its log.",
        )
    folder = settings.checkpoint_dir
    if folder.is_dir() and not (folder / CHECKPOINTS).is_file():
        return failed(
            f"{folder} has no {CHECKPOINTS}, and the database knows of one.",
            "Put it back; `guard verify` says what is missing.",
        )
    if settings.checkpoint_copy is not None and not settings.checkpoint_copy.is_dir():
        return failed(
            f"There is no folder {settings.checkpoint_copy} for copies; nothing is published.",
            "Mount it.",
        )
    if settings.checkpoint_copy is None and not settings.checkpoint_bucket:
        return warning(
            "Checkpoints have no copy: who rolls back this machine is not seen.",
            "Set GUARD_CHECKPOINT_BUCKET (with object lock) or GUARD_CHECKPOINT_COPY.",
        )
    return ok("The newest verdict has a checkpoint, and there is a copy.")


CHECKS = (
    Check("signing_key", signing_key),
    Check("trusted_keys", trusted_keys),
    Check("checkpoints", checkpoints),
)
