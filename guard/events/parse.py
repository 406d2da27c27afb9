"""Read S3 JSON 2.x, EventBridge and SeaweedFS webhook notifications, and refuse every other form.

S3: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
EventBridge: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_plus

import structlog

from guard.core.errors import InputError
from guard.events._nomination import Nomination
from guard.events.seaweedfs import is_filer_event, parse_filer_event

_LOG = structlog.get_logger()
MAX_BODY_BYTES = 256 << 10  # the most that SQS and SNS carry
_MADE = ("ObjectCreated:", "ObjectSynced:Create")
_REMOVED = ("ObjectRemoved:", "LifecycleExpiration:", "ObjectLifecycle:Expiration:")
#: MinIO calls these "created" too. Without versions a tag could otherwise pass for a new upload.
_SAME_BYTES = frozenset(
    f"ObjectCreated:{name}"
    for name in ("PutTagging", "DeleteTagging", "PutRetention", "PutLegalHold")
)
#: Ceph sends keys as they are.
_UNQUOTED = "ceph:s3"


class UnknownEvent(InputError):
    """The body is not a notification that the guard knows."""

    code = "unknown_event"


class UnknownVersion(UnknownEvent):
    """A record is of a major version that the guard does not know."""

    code = "unknown_event_version"


def decode(body: bytes) -> Any:
    """The JSON value of a request or message body.

    Raises:
        InputError: it is too large or not JSON.
    """
    if len(body) > MAX_BODY_BYTES:
        raise InputError(
            f"The event exceeds {MAX_BODY_BYTES} bytes; send fewer records.", code="event_too_large"
        )
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnknownEvent("The event is not valid JSON.", code="event_not_json") from error


def parse_event(body: Any) -> list[Nomination]:
    """The objects that one notification nominates.

    The list is empty for a test event, for the confirmation that SNS asks for (which a person
    gives), and an event that the guard need not act on. A record of an unknown version is left
    out, with a line in the log, where others beside it are known.

    Args:
        body: the decoded JSON.

    Raises:
        InputError: the form is unknown or lacks a bucket or a key.
    """
    return _parse(body, frozenset())


def _parse(body: Any, opened: frozenset[str]) -> list[Nomination]:
    if not isinstance(body, Mapping):
        raise UnknownEvent("The event must be a JSON object.")
    if body.get("Type") == "Notification" and isinstance(body.get("Message"), str):
        return _inner(body["Message"], "SNS", opened)
    if body.get("Type") in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
        # Never followed: an address out of a message would be a request in somebody's name.
        topic, address = str(body.get("TopicArn"))[:300], str(body.get("SubscribeURL"))[:1000]
        _LOG.warning("sns_asks_for_confirmation", topic=topic, subscribe_url=address)
        return []
    if body.get("Event") == "s3:TestEvent":
        return []
    if isinstance(body.get("Records"), list):
        return _records(body["Records"], opened)
    if "detail-type" in body:
        return _eventbridge(body)
    if is_filer_event(body):
        return parse_filer_event(body)
    raise UnknownEvent(
        "The event is none of: S3 JSON with Records, EventBridge, SeaweedFS webhook."
    )


def _inner(message: str, kind: str, opened: frozenset[str]) -> list[Nomination]:
    """What is in an envelope, of which there is one of each kind: SNS in SQS is usual."""
    if kind in opened:
        raise UnknownEvent(f"The event has an envelope of {kind} in another one.")
    return _parse(decode(message.encode(errors="surrogatepass")), opened | {kind})


def _records(records: list[Any], opened: frozenset[str]) -> list[Nomination]:
    """What the records of known versions say; raises if there is no such record."""
    found: list[Nomination] = []
    faults: list[UnknownVersion] = []
    for record in records:
        try:
            found += _record(record, opened)
        except UnknownVersion as error:
            faults.append(error)
    if faults and len(faults) == len(records):
        raise faults[0]
    for fault in faults:
        _LOG.warning("event_record_left_out", code=fault.code, error=fault.sentence)
    return found


def _record(record: Any, opened: frozenset[str]) -> list[Nomination]:
    # A Lambda function gets what came by SQS or SNS as records of its own.
    if _get(record, "eventSource", default="") == "aws:sqs":
        return _inner(_text(record, "body"), "SQS", opened)
    if _get(record, "EventSource", default="") == "aws:sns":
        return _inner(_text(record, "Sns", "Message"), "SNS", opened)
    version = str(_get(record, "eventVersion", default="2.0"))
    if version.split(".", maxsplit=1)[0] != "2":
        # Amazon raises the major version if old readers would misread the record.
        raise UnknownVersion(f"S3 event version {version[:10]!r} is not known; 2.x is.")
    name = _text(record, "eventName").removeprefix("s3:")
    removed = name.startswith(_REMOVED)
    if name in _SAME_BYTES or not (removed or name.startswith(_MADE)):
        return []  # tagging, restoring, replicating: the bytes stay the same
    key = _text(record, "s3", "object", "key")
    if _get(record, "eventSource", default="") != _UNQUOTED:
        # S3 quotes keys as HTML forms do: a space is a plus sign, the rest is in percent notation.
        key = unquote_plus(key, errors="surrogateescape")
    version_id = _get(record, "s3", "object", "versionId", default=None)
    return [
        _nomination(_text(record, "s3", "bucket", "name"), key, version_id, "s3", removed=removed)
    ]


def _eventbridge(body: Mapping[str, Any]) -> list[Nomination]:
    if body.get("source") == "aws.guardduty":
        return []  # what its scan of an upload found; the upload had an event of its own
    if body.get("source") != "aws.s3":
        raise UnknownEvent("The EventBridge event does not come from aws.s3.")
    kind = body["detail-type"]
    if kind not in ("Object Created", "Object Deleted"):
        return []
    version_id = _get(body, "detail", "object", "version-id", default=None)
    key = _text(body, "detail", "object", "key")  # as it is, not URL-encoded
    bucket = _text(body, "detail", "bucket", "name")
    return [_nomination(bucket, key, version_id, "eventbridge", removed=kind == "Object Deleted")]


def _nomination(
    bucket: str, key: str, version_id: Any, source: str, *, removed: bool
) -> Nomination:
    if version_id is not None and not isinstance(version_id, str):
        raise UnknownEvent("The event's version id is not a string.")
    # "null" is the name S3 gives to the one version of an object in a bucket without versioning.
    known = version_id if version_id not in (None, "", "null") else None
    return Nomination(bucket=bucket, key=key, version_id=known, source=source, removed=removed)


_MISSING = object()


def _get(value: Any, *path: str, default: Any = _MISSING) -> Any:
    for step in path:
        value = value.get(step, _MISSING) if isinstance(value, Mapping) else _MISSING
        if value is _MISSING:
            if default is not _MISSING:
                return default
            raise UnknownEvent(f"The event lacks {'.'.join(path)}.", code="event_incomplete")
    return value


def _text(value: Any, *path: str) -> str:
    found = _get(value, *path)
    if not isinstance(found, str) or not found:
        raise UnknownEvent(
            f"The event's {'.'.join(path)} is not a string.", code="event_incomplete"
        )
    return found
