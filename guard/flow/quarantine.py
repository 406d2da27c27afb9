"""Quarantine: a bucket policy under which nobody but the guard reads what was not cleared.

The tags of `guard.flow.tags` say what was; the policy also keeps everybody else from setting them.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from guard.core.digests import json_digest
from guard.core.errors import InputError
from guard.core.roles import Act
from guard.core.states import Verdict
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.principals import Principal, permit
from guard.flow.tags import EXPIRED, OWN, PENDING, READABLE, VERDICT, WITHDRAWN
from guard.store.session import reading, transaction

if TYPE_CHECKING:
    from guard.flow.context import Guard

#: Statements of these names are the guard's; others of the bucket's policy are kept.
SID = "RegistryGuard"
_ARN = re.compile(r"arn:[a-z-]+:(iam|sts)::[0-9*]*:[A-Za-z0-9+=,.@_/*-]+")
_USER = re.compile(r"[A-Za-z0-9+=,.@_-]{1,64}")
_WRITE_TAGS = (
    "s3:PutObjectTagging",
    "s3:PutObjectVersionTagging",
    "s3:DeleteObjectTagging",
    "s3:DeleteObjectVersionTagging",
)
_READ = ("s3:GetObject", "s3:GetObjectVersion")


class StoreKind(StrEnum):
    """Whose policy language is spoken."""

    AWS = "aws"  # also MinIO and Ceph, where `aws:PrincipalArn` is known
    MINIO = "minio"  # principals by user name
    SEAWEEDFS = "seaweedfs"  # as far as version 4.48 evaluates it


def policy(bucket: str, store: StoreKind, principals: Sequence[str]) -> dict[str, Any]:
    """The policy's document.

    On AWS and MinIO what has no tag is unreadable as well. SeaweedFS 4.48 evaluates conditions on
    tags only where they must equal something: there an upload without a tag, which is one that the
    guard has not taken in yet, stays readable.

    Args:
        bucket: its name.
        store: whose language.
        principals: who goes on reading and tagging: ARNs for AWS, else user names.

    Raises:
        InputError: there is no principal, or one is not of the store's form.
    """
    form = _ARN if store is StoreKind.AWS else _USER
    if not principals or not all(form.fullmatch(one) for one in principals):
        kind = "ARNs" if store is StoreKind.AWS else "user names"
        raise InputError(
            f"Name the guard's own principals, as {kind}: without them the policy would lock the "
            "guard out.",
            code="bad_quarantine_principal",
        )
    objects = f"arn:aws:s3:::{bucket}/*"
    tag = f"s3:ExistingObjectTag/{VERDICT}"
    others: dict[str, Any] = (
        {"StringNotEquals": {"aws:username": list(principals)}}
        if store in (StoreKind.MINIO, StoreKind.SEAWEEDFS)
        else {"ArnNotLike": {"aws:PrincipalArn": list(principals)}}
    )
    unread = {"StringNotEquals": {tag: list(READABLE)}}
    if store is StoreKind.SEAWEEDFS:
        unread = {"StringEquals": {tag: _blocked()}}
    made = [
        _deny("Read", _READ, objects, _both(others, unread)),
        _deny("Tags", _WRITE_TAGS, objects, others),
    ]
    if store is not StoreKind.SEAWEEDFS:
        # An upload may bring tags with it.
        forged = {"ForAnyValue:StringLike": {"s3:RequestObjectTagKeys": [f"{OWN}*"]}}
        made.append(_deny("Forged", ("s3:PutObject",), objects, _both(others, forged)))
    return {"Version": "2012-10-17", "Statement": made}


def merged(there: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The bucket's policy with the guard's statements in place of earlier ones of the guard's."""
    kept = there.get("Statement", [])
    kept = [kept] if isinstance(kept, dict) else list(kept)
    kept = [one for one in kept if not str(one.get("Sid", "")).startswith(SID)]
    return {**there, "Version": own["Version"], "Statement": [*kept, *own["Statement"]]}


def apply(
    guard: "Guard",
    who: Principal | str,
    bucket: str,
    store: StoreKind,
    principals: Sequence[str],
) -> dict[str, Any]:
    """Set the policy on an intake bucket, as an operator; the whole policy that it has now.

    The guard's credentials need the right to set a bucket's policy, for this act only.

    Raises:
        Unauthorised, Forbidden: `who` is no operator.
        InputError: it is no intake bucket, tags are switched off, or as `policy`.
        Unavailable: the store does not answer, or refuses the policy.
    """
    own = policy(bucket, store, principals)
    if bucket not in guard.settings.intake_buckets:
        raise InputError(f"{bucket!r} is no intake bucket.", code="bad_bucket")
    if not guard.settings.object_tags:
        raise InputError(
            "Set GUARD_OBJECT_TAGS first: in quarantine nothing is readable without a tag.",
            code="tags_are_off",
        )
    with reading(guard.engine) as session:
        permit(guard, session, who, Act.QUARANTINE)
    place = guard.make_bucket(bucket)
    whole = merged(place.policy(), own)
    # The act is committed first: no policy is set that nobody is known to have set.
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.QUARANTINE)
        facts = {"store": str(store), "principals": list(principals), "policy": json_digest(whole)}
        note(guard, session, who, Act.QUARANTINE, bucket, f"bucket policy of {bucket}", facts)
    settle(guard)
    place.put_policy(whole)
    return whole


def _blocked() -> list[str]:
    values = [str(one) for one in Verdict if str(one) not in READABLE]
    return [*values, PENDING, EXPIRED, WITHDRAWN]


def _deny(
    name: str, actions: Sequence[str], objects: str, condition: dict[str, Any]
) -> dict[str, Any]:
    return {
        "Sid": f"{SID}{name}",
        "Effect": "Deny",
        "Principal": "*",
        "Action": list(actions),
        "Resource": [objects],
        "Condition": condition,
    }


def _both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """A condition that holds where both hold, which may use the same operator on other keys."""
    keys = [*first, *(key for key in second if key not in first)]
    return {key: {**first.get(key, {}), **second.get(key, {})} for key in keys}
