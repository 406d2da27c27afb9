"""Facts, pinned streams and listings of a real S3 server (SeaweedFS)."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from guard.core.errors import ArtifactRejected, GuardError, InputError, Unavailable
from guard.events.bucket import Bucket, ObjectChanged, make_client
from tests.services import shared_weed


@pytest.fixture(scope="module")
def bucket() -> Bucket:
    return shared_weed().new_bucket()


@pytest.fixture(scope="module")
def plain() -> Bucket:
    return shared_weed().new_bucket(versioned=False)


def put(bucket: Bucket, key: str, data: bytes, **more: object) -> str | None:
    version = bucket.client.put_object(Bucket=bucket.name, Key=key, Body=data, **more).get(
        "VersionId"
    )
    return None if version is None else str(version)


def test_head_tells_the_facts_of_a_version(bucket: Bucket) -> None:
    version = put(bucket, "h/a b+c.pt", b"12345", Metadata={"submitted-by": "ann"})
    put(bucket, "h/a b+c.pt", b"newer one")

    facts = bucket.head("h/a b+c.pt", version)

    assert (bucket.name, "h/a b+c.pt", version, 5) == (
        facts.bucket,
        facts.key,
        facts.version_id,
        facts.size,
    )
    assert facts.metadata == {"submitted-by": "ann"}
    assert bucket.head("h/a b+c.pt").size == 9


def test_versioning_is_told(bucket: Bucket, plain: Bucket) -> None:
    assert bucket.versioned()
    assert not plain.versioned()


@pytest.mark.row(5)
@pytest.mark.threat("A01")
def test_a_stream_is_of_the_pinned_version_whatever_came_later(bucket: Bucket) -> None:
    put(bucket, "s/m.pt", b"first" * 1000)
    facts = bucket.head("s/m.pt")
    put(bucket, "s/m.pt", b"second")
    bucket.client.delete_object(Bucket=bucket.name, Key="s/m.pt")

    chunks = list(bucket.stream(facts, chunk=1000))

    assert b"".join(chunks) == b"first" * 1000
    assert max(map(len, chunks)) <= 1000


@pytest.mark.threat("A02")
def test_without_versions_a_stream_is_pinned_by_the_etag(plain: Bucket) -> None:
    put(plain, "s/m.pt", b"first")
    facts = plain.head("s/m.pt")
    assert facts.version_id is None
    assert b"".join(plain.stream(facts)) == b"first"

    put(plain, "s/m.pt", b"other")

    with pytest.raises(ObjectChanged) as caught:
        list(plain.stream(facts))
    assert caught.value.code == "object_replaced"


def test_what_is_gone_says_so(bucket: Bucket) -> None:
    put(bucket, "g/m.pt", b"x")
    facts = bucket.head("g/m.pt")
    bucket.client.delete_object(Bucket=bucket.name, Key="g/m.pt", VersionId=facts.version_id)

    for call in (
        lambda: bucket.head("g/m.pt"),
        lambda: bucket.head("g/m.pt", facts.version_id),
        lambda: list(bucket.stream(facts)),
        lambda: bucket.head("g/never.pt"),
    ):
        with pytest.raises(ObjectChanged) as caught:
            call()
        assert caught.value.code == "object_gone"


def test_a_delete_marker_hides_the_object(bucket: Bucket) -> None:
    put(bucket, "d/m.pt", b"x")
    bucket.client.delete_object(Bucket=bucket.name, Key="d/m.pt")

    with pytest.raises(ObjectChanged):
        bucket.head("d/m.pt")
    assert list(bucket.latest("d/")) == []
    assert len(list(bucket.versions("d/"))) == 1


def test_small_objects_are_read_whole_or_not_at_all(bucket: Bucket) -> None:
    version = put(bucket, "c/config.json", b"{}")

    found = bucket.read_small("c/config.json", 2)

    assert found is not None
    assert (b"{}", version) == (found[0], found[1].version_id)
    assert bucket.read_small("c/none.json", 2) is None
    with pytest.raises(ArtifactRejected, match="larger than 1 bytes"):
        bucket.read_small("c/config.json", 1)


def test_listings_name_the_latest_or_every_version(bucket: Bucket) -> None:
    old = put(bucket, "l/a.pt", b"1")
    new = put(bucket, "l/a.pt", b"22")
    other = put(bucket, "l/sub/b.pt", b"3")

    assert {("l/a.pt", new, 2), ("l/sub/b.pt", other, 1)} == {
        (facts.key, facts.version_id, facts.size) for facts in bucket.latest("l/")
    }
    assert {old, new, other} == {facts.version_id for facts in bucket.versions("l/")}


def test_in_an_unversioned_bucket_listing_and_head_pin_alike(plain: Bucket) -> None:
    put(plain, "l/a.pt", b"1")

    (listed,) = plain.latest("l/")

    assert listed.version_id is None
    assert plain.head("l/a.pt").pin == listed.pin
    assert listed.pin.startswith("etag:")


def test_a_local_file_is_put_and_its_version_told(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(b"local")

    version = bucket.upload(tmp_path / "m.pt", "u/m.pt")

    assert b"".join(bucket.stream(bucket.head("u/m.pt", version))) == b"local"


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "a/../b", "CON", "-rf", "..%2fx", "a//b", "x" * 250, "\u202egpj.pt"]
)
def test_odd_keys_end_in_an_answer_of_ours(bucket: Bucket, key: str) -> None:
    with pytest.raises((ObjectChanged, InputError)):
        bucket.head(key)


def test_bad_credentials_are_unavailable_not_a_verdict(bucket: Bucket) -> None:
    stranger = make_client(
        endpoint=shared_weed().endpoint, access_key="test-access", secret_key="wrong"
    )

    with pytest.raises(Unavailable, match="check its name and the guard's rights"):
        Bucket(stranger, bucket.name).head("any")


def test_a_store_that_is_away_is_unavailable() -> None:
    away = Bucket(
        make_client(endpoint="http://127.0.0.1:9", access_key="a", secret_key="b"), "models"
    )

    for call in (
        lambda: away.head("k"),
        lambda: away.read_small("k", 1),
        lambda: list(away.latest()),
        away.versioned,
    ):
        with pytest.raises(Unavailable, match="does not answer"):
            call()


class _Dropping(BaseHTTPRequestHandler):
    """An S3 that promises 1000 bytes and hangs up after 10: what a broken network looks like."""

    def do_HEAD(self) -> None:
        self._promise()

    def do_GET(self) -> None:
        self._promise()
        self.wfile.write(b"0123456789")

    def _promise(self) -> None:
        self.send_response(200)
        for name, value in (
            ("Content-Length", "1000"),
            ("ETag", '"e"'),
            ("x-amz-version-id", "v1"),
            ("Last-Modified", "Sat, 21 Nov 2026 08:40:05 GMT"),
        ):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def dropping() -> Iterator[Bucket]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Dropping)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = make_client(
        endpoint=f"http://127.0.0.1:{server.server_port}", access_key="a", secret_key="b"
    )
    yield Bucket(client, "models")
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stream_that_breaks_off_is_unavailable(dropping: Bucket) -> None:
    with pytest.raises(Unavailable):
        list(dropping.stream(dropping.head("m.pt")))


def test_no_foreign_error_leaks(bucket: Bucket) -> None:
    for version in ("nonsense", "ü", "../x"):
        with pytest.raises(GuardError):
            bucket.head("h/a b+c.pt", version)


def test_a_new_object_never_replaces_one_and_names_behind_another_are_listed(
    bucket: Bucket,
) -> None:
    for number in (1, 2, 10):
        bucket.put_new(f"new/{number:03d}", str(number).encode())
    bucket.put_new("new/002", b"another")

    assert bucket.keys_after("new/", "new/001") == ["new/002", "new/010"]
    assert bucket.keys_after("new/", "new/010") == []
    found = bucket.read_small("new/002", 100)
    assert found is not None
    assert found[0] == b"2"
