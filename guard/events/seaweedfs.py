"""SeaweedFS filer webhooks: file-system events under /buckets, translated back into S3 objects.

Observed with SeaweedFS 4.48. A versioned object is a folder `<key>.versions` with one file
`v_<version id>` per version; values of `extended` are base64. Events are delivered at most once:
the sweep finds what never arrived.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from guard.core.errors import InputError
from guard.events._nomination import Nomination

_ROOT = "/buckets/"
_KINDS = ("create", "update", "rename", "delete")
_VERSION_ID = "Seaweed-X-Amz-Version-Id"
_DELETE_MARKER = "Seaweed-X-Amz-Delete-Marker"
_REPLACED = "Seaweed-X-Amz-Noncurrent-Since-Ns"


def is_filer_event(body: Mapping[str, Any]) -> bool:
    """Whether this has the form of a filer webhook."""
    return "event_type" in body and "key" in body and isinstance(body.get("message"), Mapping)


def parse_filer_event(body: Mapping[str, Any]) -> list[Nomination]:
    """The object that a filer event is about, if there is one.

    Raises:
        InputError: the event kind is unknown, or a field is of the wrong type.
    """
    kind, path, message = body["event_type"], body["key"], body["message"]
    if kind not in _KINDS or not isinstance(path, str):
        raise InputError(
            "The SeaweedFS event has an unknown event_type or no key.", code="unknown_event"
        )
    entry = message.get("old_entry" if kind == "delete" else "new_entry")
    if not isinstance(entry, Mapping):
        return []
    if kind == "rename":
        path = f"{message.get('new_parent_path', '')}/{entry.get('name', '')}"
    bucket, _, key = path.removeprefix(_ROOT).partition("/")
    if not path.startswith(_ROOT) or not key or bucket.startswith("."):
        return []  # the filer's own files, such as /buckets/.system
    # Multipart parts, the folder of an object's versions and all other folders are not objects.
    if entry.get("is_directory") or key.startswith(".uploads/"):
        return []
    extended = entry.get("extended") or {}
    if not isinstance(extended, Mapping):
        raise InputError(
            "The SeaweedFS event's extended attributes are not an object.", code="unknown_event"
        )
    if _REPLACED in extended:
        # An old version was marked because a newer one arrived; it had an event of its own before.
        return []
    key, version = _versioned(key, extended)
    removed = kind == "delete" or _plain(extended, _DELETE_MARKER) == "true"
    return [
        Nomination(bucket=bucket, key=key, version_id=version, source="seaweedfs", removed=removed)
    ]


def _versioned(key: str, extended: Mapping[str, Any]) -> tuple[str, str | None]:
    folder, _, file = key.rpartition("/")
    version = _plain(extended, _VERSION_ID)
    # Both must agree: anybody may upload a key that looks like a version's file.
    if (
        version not in (None, "", "null")
        and folder.endswith(".versions")
        and file == f"v_{version}"
    ):
        return folder.removesuffix(".versions"), version
    return key, None


def _plain(extended: Mapping[str, Any], name: str) -> str | None:
    value = extended.get(name)
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (TypeError, ValueError, binascii.Error) as error:
        raise InputError(
            f"The SeaweedFS event's {name} is not base64 text.", code="unknown_event"
        ) from error
