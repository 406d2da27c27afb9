"""Blobs in a real S3 bucket (SeaweedFS), through a cache that serves verified copies only."""

import hashlib
import secrets
from pathlib import Path

import pytest

from guard.blobs import BlobMissing, open_blobs
from guard.blobs.s3 import PART, S3Blobs
from guard.core.errors import IntegrityMismatch, Unavailable
from guard.events.bucket import Bucket, make_client
from tests.services import shared_weed

DATA = b"weights" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def bucket() -> Bucket:
    return shared_weed().new_bucket(versioned=False)


@pytest.fixture
def blobs(bucket: Bucket, tmp_path: Path) -> S3Blobs:
    return S3Blobs(bucket.client, bucket.name, secrets.token_hex(4), tmp_path / "cache")


def elsewhere(blobs: S3Blobs, tmp_path: Path) -> S3Blobs:
    """The same store seen from another host, whose cache is empty."""
    return S3Blobs(blobs.client, blobs.bucket, blobs.prefix, tmp_path / "other")


def test_what_one_host_stored_another_reads_verified(blobs: S3Blobs, tmp_path: Path) -> None:
    stored = blobs.put(iter([DATA[:5], DATA[5:]]))
    other = elsewhere(blobs, tmp_path)

    assert (DIGEST, len(DATA)) == stored
    assert other.has(DIGEST)
    assert other.open(DIGEST).read() == DATA
    assert other.path(DIGEST).read_bytes() == DATA


def test_large_blobs_go_in_parts(blobs: S3Blobs, tmp_path: Path) -> None:
    chunks = [secrets.token_bytes(1 << 20)] * ((2 * PART >> 20) + 1)
    digest, size = blobs.put(chunks)
    head = blobs.client.head_object(Bucket=blobs.bucket, Key=f"{blobs.prefix}/{digest}")

    assert "-" in head["ETag"]  # how S3 marks what came in parts
    assert size == head["ContentLength"]
    assert digest == hashlib.sha256(elsewhere(blobs, tmp_path).open(digest).read()).hexdigest()


def test_changed_bytes_in_the_bucket_are_never_handed_out(blobs: S3Blobs, tmp_path: Path) -> None:
    blobs.put_bytes(DATA)
    blobs.client.put_object(
        Bucket=blobs.bucket, Key=f"{blobs.prefix}/{DIGEST}", Body=DATA[:-1] + b"X"
    )
    other = elsewhere(blobs, tmp_path)

    with pytest.raises(IntegrityMismatch, match="have the SHA-256"):
        other.open(DIGEST)
    assert [path for path in (tmp_path / "other").rglob("*") if path.is_file()] == []


def test_a_rotten_cache_is_filled_again_from_the_bucket(blobs: S3Blobs) -> None:
    blobs.put_bytes(DATA)
    place = blobs.cache.place(DIGEST)
    place.chmod(0o600)
    place.write_bytes(b"rot")

    assert blobs.open(DIGEST).read() == DATA


def test_deleted_is_gone_from_bucket_and_cache(blobs: S3Blobs) -> None:
    blobs.put_bytes(DATA)
    blobs.delete(DIGEST)
    blobs.delete(DIGEST)

    assert not blobs.has(DIGEST)
    with pytest.raises(BlobMissing):
        blobs.open(DIGEST)


def test_a_store_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    client = make_client(endpoint="http://127.0.0.1:9", access_key="a", secret_key="b")
    blobs = S3Blobs(client, "bucket", "", tmp_path)

    with pytest.raises(Unavailable, match="does not answer"):
        blobs.put_bytes(DATA)


def test_a_bucket_that_is_not_there_is_unavailable(blobs: S3Blobs, tmp_path: Path) -> None:
    lost = S3Blobs(blobs.client, "no-such-bucket", "", tmp_path / "c")

    with pytest.raises((Unavailable, BlobMissing)):
        lost.open(DIGEST)


def test_the_url_names_bucket_and_prefix(bucket: Bucket, tmp_path: Path) -> None:
    store = open_blobs(
        f"s3://{bucket.name}/some/prefix/", client=lambda: bucket.client, cache=tmp_path / "c"
    )
    store.put_bytes(DATA)

    assert len(DATA) == bucket.head(f"some/prefix/{DIGEST}").size
