"""The buckets of a store that comes along are made once, and may be made again."""

from dataclasses import replace

import pytest

from guard.core.errors import Unavailable
from guard.local import buckets
from guard.settings import Settings, load_settings
from tests.services import shared_weed


def settings_of(**more: str) -> Settings:
    weed = shared_weed()
    return load_settings(weed.environment("uploads-of-compose") | more)


def test_uploads_have_versions_and_the_own_copies_a_bucket_of_their_own() -> None:
    settings = settings_of(GUARD_BLOB_URL="s3://copies-of-compose/sha256")
    for _ in range(2):
        buckets.make(settings, buckets.blob_bucket(settings))
    client = shared_weed().client()

    assert client.get_bucket_versioning(Bucket="uploads-of-compose")["Status"] == "Enabled"
    assert client.head_bucket(Bucket="copies-of-compose")


def test_blobs_in_a_folder_need_no_bucket() -> None:
    assert buckets.blob_bucket(settings_of(GUARD_BLOB_URL="/blobs")) == []


def test_a_store_that_refuses_is_a_sentence() -> None:
    wrong = replace(settings_of(), s3_access_key="somebody")

    with pytest.raises(Unavailable, match="did not make the bucket"):
        buckets.make(wrong)
