"""Check that files which others write and files of the guard do not share a place."""

from collections.abc import Collection, Mapping
from itertools import combinations
from pathlib import Path

from guard.core.errors import InputError

_S3, _FILE = "s3://", "file://"


def keep_apart(written_by_others: Collection[str], own: Mapping[str, str | Path | None]) -> None:
    """Refuse a place of the guard in a bucket that others write to, and folders in each other.

    Args:
        written_by_others: names of buckets.
        own: the guard's places by the setting that names each: folders, and URLs of buckets.

    Raises:
        InputError: `places_overlap`; the sentence names the settings.
    """
    folders = []
    for setting, place in own.items():
        text = str(place or "")
        if not text.startswith(_S3):
            if text:
                folders.append((setting, Path(text.removeprefix(_FILE)).resolve()))
            continue
        bucket = text.removeprefix(_S3).split("/")[0]
        if bucket in written_by_others:
            raise InputError(
                f"{setting} lies in bucket {bucket!r}, where uploads or training sets arrive and "
                "others could replace what the guard keeps; give the guard a bucket of its own.",
                code="places_overlap",
            )
    for (one, first), (other, second) in combinations(folders, 2):
        if first.is_relative_to(second) or second.is_relative_to(first):
            raise InputError(
                f"{one} and {other} lie in each other, so that vetted files and others could be "
                "confused; give each a folder of its own.",
                code="places_overlap",
            )
