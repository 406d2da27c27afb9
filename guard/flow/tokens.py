"""Give out tokens, revoke them, and say who owns which prefix."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from guard.core.digests import sha256
from guard.core.errors import InputError
from guard.core.roles import Act, Role
from guard.flow._acts import GUARD, note
from guard.flow._seal import settle
from guard.flow.principals import API, Principal, permit
from guard.store import principals, uploaders
from guard.store.session import transaction

if TYPE_CHECKING:
    from guard.flow.context import Guard
    from guard.store.rows import TokenRow

NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
RESERVED = frozenset({API, GUARD, "unknown", "unauthenticated"})
MAX_DAYS = 366


@dataclass(frozen=True)
class NewToken:
    """A token as it was just made; `text` is shown once and stored nowhere."""

    row: "TokenRow"
    text: str


def create(
    guard: "Guard",
    who: Principal,
    name: str,
    role: Role,
    *,
    days: int,
    prefixes: Sequence[str] = (),
    first: bool = False,
) -> NewToken:
    """Give a principal a token, and make it the owner of prefixes.

    Args:
        days: how long it counts, 1..366.
        prefixes: each BUCKET/PREFIX under which the principal may upload.
        first: `who` needs no token, the role must be operator, and no principal may exist yet.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: a name, a prefix or the number of days cannot be, or `first` is not the first.
    """
    if not NAME.fullmatch(name) or name in RESERVED:
        raise InputError(
            f"{name!r} cannot name a principal; use a-z, 0-9 and . _ @ -, and none of "
            f"{', '.join(sorted(RESERVED))}.",
            code="bad_principal",
        )
    if not 1 <= days <= MAX_DAYS:
        raise InputError(f"A token counts for 1 to {MAX_DAYS} days.", code="bad_expiry")
    places = [place_of(guard, prefix) for prefix in prefixes]
    token_id, secret, now = secrets.token_hex(8), secrets.token_urlsafe(32), guard.now()
    with transaction(guard.engine) as session:
        principals.lock(session)
        if not first:
            who = permit(guard, session, who, Act.GIVE_TOKEN)
        elif role is not Role.OPERATOR or principals.exist(session):
            raise InputError(
                "--first is for the first operator's token, where no principal exists yet.",
                code="not_first",
            )
        principals.put(session, name, now)
        row = principals.add_token(
            session,
            token_id=token_id,
            principal=name,
            role=role,
            secret_hash=sha256(secret.encode()),
            now=now,
            expires_at=now + timedelta(days=days),
        )
        for bucket, prefix in places:
            uploaders.add_owner(session, bucket=bucket, prefix=prefix, principal=name, now=now)
        owned = "".join(f", owns {bucket}/{prefix}" for bucket, prefix in places)
        detail = f"{role} {token_id} until {row.expires_at.date()}{owned}"
        note(guard, session, who, Act.GIVE_TOKEN, name, detail)
    settle(guard)
    return NewToken(row, f"guard_{token_id}_{secret}")


def revoke(guard: "Guard", who: Principal, id_or_name: str) -> "list[TokenRow]":
    """Revoke one token, or all of a principal; from now on they count no more.

    Returns:
        The tokens that were in force until now.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: there is no such token or principal.
    """
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.REVOKE_TOKEN)
        rows = principals.revoke(session, id_or_name, guard.now())
        for row in rows:
            note(guard, session, who, Act.REVOKE_TOKEN, row.principal, f"{row.role} {row.id}")
    settle(guard)
    return rows


def disown(guard: "Guard", who: Principal, name: str, prefix: str) -> None:
    """End a principal's ownership of BUCKET/PREFIX; earlier uploads keep their uploader.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: the principal does not own the prefix.
    """
    bucket, rest = place_of(guard, prefix)
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.REMOVE_OWNER)
        now = guard.now()
        if not uploaders.remove_owner(session, bucket=bucket, prefix=rest, principal=name, now=now):
            raise InputError(f"{name} does not own {bucket}/{rest}.", code="unknown_owner")
        note(guard, session, who, Act.REMOVE_OWNER, name, f"{bucket}/{rest}")
    settle(guard)


def place_of(guard: "Guard", text: str) -> tuple[str, str]:
    """BUCKET/PREFIX as a bucket and a folder of it: `models/ann` does not cover `models/anna/`.

    Raises:
        InputError: the bucket takes no uploads.
    """
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if bucket not in guard.settings.intake_buckets:
        raise InputError(
            f"{bucket!r} is no intake bucket; give a prefix as BUCKET/PREFIX.", code="bad_prefix"
        )
    folder = prefix.strip("/")
    return bucket, f"{folder}/" if folder else ""
