"""Copy a training set from a bucket to local files: pinned, within limits, under plain names."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from guard.core.errors import TrainingSetError
from guard.core.progress import Progress, silent
from guard.events.bucket import ObjectChanged

if TYPE_CHECKING:
    from guard.events.bucket import Bucket, ObjectFacts
    from guard.flow.context import Guard

SCHEME = "s3://"
FILES = (".parquet", ".npz")  # what one key may be; every other training set is a prefix
#: A listing of one object takes half a kilobyte of memory, and each is fetched on its own.
MAX_OBJECTS = 2_000_000
_AT_ONCE = 8
_MAX_PART = 255  # bytes of a name on the usual file systems


def fetch(guard: "Guard", uri: str, folder: Path, *, progress: Progress = silent) -> Path:
    """Copy what lies under `s3://bucket/prefix/`, or one file, below `folder`.

    The listing pins each object's version (its ETag in a bucket without versions); a later upload
    changes nothing in the copy.

    Returns:
        The folder, or the file, to read.

    Raises:
        TrainingSetError: the bucket is not allowed, nothing lies there, it is too large, a key
            cannot be a file name, or an object changed meanwhile.
        Unavailable: the store does not answer.
    """
    bucket_name, _, prefix = uri.removeprefix(SCHEME).partition("/")
    if bucket_name not in guard.settings.trainset_buckets:
        raise TrainingSetError(
            f"The guard may not read training sets from the bucket {bucket_name!r}; an operator "
            "adds it to GUARD_TRAINSET_BUCKETS.",
            code="trainset_foreign_bucket",
        )
    single = prefix.lower().endswith(FILES)
    if not single and not prefix.endswith("/"):
        raise TrainingSetError(
            f"{uri} must end with a slash, or be the key of a .parquet or an .npz.",
            code="trainset_bad_uri",
        )
    bucket = guard.make_bucket(bucket_name)
    found = _one(bucket, prefix, uri) if single else _listed(bucket, prefix, uri)
    _check_size(found, guard.settings.max_trainset_bytes, folder)
    base = prefix.rpartition("/")[0] + "/" if "/" in prefix else ""
    places = [_place(folder, facts.key, base) for facts in found]
    _copy(bucket, found, places, progress)
    return places[0] if single else folder


def _one(bucket: "Bucket", key: str, uri: str) -> list["ObjectFacts"]:
    try:
        return [bucket.head(key)]
    except ObjectChanged as error:
        raise _nothing(uri) from error


def _listed(bucket: "Bucket", prefix: str, uri: str) -> list["ObjectFacts"]:
    found = []
    for facts in bucket.latest(prefix):
        if facts.key.endswith("/"):
            continue  # the mark that some tools leave for a folder
        found.append(facts)
        if len(found) > MAX_OBJECTS:
            raise _too_large(f"{uri} holds over {MAX_OBJECTS:,} objects; write Parquet files.")
    if not found:
        raise _nothing(uri)
    return sorted(found, key=lambda facts: facts.key)


def _nothing(uri: str) -> TrainingSetError:
    return TrainingSetError(f"Nothing lies under {uri}.", code="trainset_not_found")


def _check_size(found: list["ObjectFacts"], limit: int, folder: Path) -> None:
    total = sum(facts.size for facts in found)
    if total > limit:
        raise _too_large(
            f"The training set has {total:,} bytes; GUARD_MAX_TRAINSET_BYTES allows {limit:,}."
        )
    free = shutil.disk_usage(folder).free
    if total > free:
        raise _too_large(
            f"The training set has {total:,} bytes, and {free:,} are free in the data folder."
        )


def _too_large(sentence: str) -> TrainingSetError:
    return TrainingSetError(sentence, code="trainset_too_large")


def _place(folder: Path, key: str, base: str) -> Path:
    """Where an object goes; a key that is no plain relative path is refused."""
    parts = key.removeprefix(base).split("/")
    for part in parts:
        if (
            part in {"", ".", ".."}
            or "\\" in part
            or not part.isprintable()
            or len(part.encode()) > _MAX_PART
        ):
            raise TrainingSetError(
                f"The key {key!r:.200} cannot be a file's name; rename the object.",
                code="trainset_bad_key",
            )
    return folder / PurePosixPath(*parts)


def _copy(
    bucket: "Bucket", found: list["ObjectFacts"], places: list[Path], progress: Progress
) -> None:
    total, done = max(1, sum(facts.size for facts in found)), 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        jobs = zip(found, pool.map(_saver(bucket), found, places), strict=True)
        try:
            for facts, _ in jobs:
                done += facts.size
                progress(done / total, "fetching the training set")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _saver(bucket: "Bucket") -> Callable[["ObjectFacts", Path], None]:
    def save(facts: "ObjectFacts", place: Path) -> None:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                file.writelines(bucket.stream(facts))
        except ObjectChanged as error:
            raise TrainingSetError(
                f"The object {facts.key!r:.200} of the training set was replaced or deleted while "
                "the guard read it; read the set again when nobody writes there.",
                code="trainset_changed",
            ) from error
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise TrainingSetError(
                f"The key {facts.key!r:.200} is also the folder of other keys; rename the object.",
                code="trainset_bad_key",
            ) from error

    return save
