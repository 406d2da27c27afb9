"""Every form of notification becomes the same nominations; every other form is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.errors import InputError
from guard.events import Nomination, parse_event
from guard.events.parse import MAX_BODY_BYTES, decode


def record(
    name: str = "ObjectCreated:Put", key: str = "in/m.safetensors", version: Any = "v1", **more: Any
) -> dict[str, Any]:
    """One record as AWS documents it."""
    thing = {"key": key, "size": 5, "eTag": "abc", "sequencer": "0055AED6DCD90281E5"}
    if version != "absent":
        thing["versionId"] = version
    return {
        "eventVersion": "2.2",
        "eventSource": "aws:s3",
        "awsRegion": "us-west-2",
        "eventName": name,
        "userIdentity": {"principalId": "x"},
        "s3": {"s3SchemaVersion": "1.0", "bucket": {"name": "models"}, "object": thing},
        **more,
    }


def of(*records: Any) -> list[Nomination]:
    return parse_event({"Records": list(records)})


def test_several_records_are_several_nominations_in_order() -> None:
    found = of(
        record(key="a/1", version="x"), record("ObjectCreated:CompleteMultipartUpload", "b/2", "y")
    )

    assert [Nomination("models", "a/1", "x", "s3"), Nomination("models", "b/2", "y", "s3")] == found


@pytest.mark.parametrize(
    ("quoted", "plain"),
    [
        ("in/a+b.pt", "in/a b.pt"),
        ("in/a%2Bb.pt", "in/a+b.pt"),
        ("in%2Fa.pt", "in/a.pt"),
        ("%C3%BC/%E6%A8%A1.pt", "ü/模.pt"),
        ("100%25.pt", "100%.pt"),
        ("..%2F..%2Fetc", "../../etc"),
    ],
)
def test_keys_in_s3_json_are_form_quoted(quoted: str, plain: str) -> None:
    assert [plain] == [item.key for item in of(record(key=quoted))]


@pytest.mark.parametrize("version", [None, "", "null", "absent"])
def test_no_version_id_in_any_spelling_is_none(version: Any) -> None:
    assert [item.version_id for item in of(record(version=version))] == [None]


@pytest.mark.parametrize(
    "name",
    [
        "ObjectRemoved:Delete",
        "ObjectRemoved:DeleteMarkerCreated",
        "s3:ObjectRemoved:Delete",
        "LifecycleExpiration:Delete",
    ],
)
def test_removals_are_marked(name: str) -> None:
    assert [item.removed for item in of(record(name))] == [True]


@pytest.mark.parametrize(
    "name",
    ["ObjectTagging:Put", "ObjectRestore:Completed", "ReducedRedundancyLostObject", "New:Kind"],
)
def test_happenings_that_leave_the_bytes_alone_nominate_nothing(name: str) -> None:
    assert of(record(name)) == []


def test_the_minio_spelling_is_the_same() -> None:
    body = {
        "EventName": "s3:ObjectCreated:Put",
        "Key": "models/in/m.pt",
        "Records": [
            record(
                "s3:ObjectCreated:Put", "in%2Fm.pt", "v", eventSource="minio:s3", eventVersion="2.0"
            )
        ],
    }

    assert [Nomination("models", "in/m.pt", "v", "s3")] == parse_event(body)


def test_the_test_event_of_s3_is_fine_and_means_nothing() -> None:
    body = {
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": "2014-10-13T15:57:02.089Z",
        "Bucket": "models",
    }

    assert parse_event(body) == []


def test_an_envelope_of_sns_is_opened_once() -> None:
    inner = json.dumps({"Records": [record()]})
    envelope = {"Type": "Notification", "Message": inner}

    assert len(parse_event(envelope)) == 1
    with pytest.raises(InputError):
        parse_event({"Type": "Notification", "Message": json.dumps(envelope)})


@pytest.mark.threat("C12")
@pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
def test_a_confirmation_that_sns_asks_for_is_taken_and_its_address_never_followed(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body = {"Type": kind, "TopicArn": "arn:aws:sns:x", "SubscribeURL": "http://127.0.0.1:9/c"}

    assert parse_event(body) == []
    logged = capsys.readouterr()
    assert "http://127.0.0.1:9/c" in logged.out + logged.err


def sns(inner: object) -> dict[str, Any]:
    return {"Type": "Notification", "Message": json.dumps(inner)}


def test_what_a_lambda_function_got_by_sqs_or_sns_is_opened() -> None:
    plain = {"Records": [record()]}
    by_sqs = {"Records": [{"eventSource": "aws:sqs", "body": json.dumps(plain)}] * 2}
    by_sns = {"Records": [{"EventSource": "aws:sns", "Sns": sns(plain)}]}
    by_both = {"Records": [{"eventSource": "aws:sqs", "body": json.dumps(sns(plain))}]}

    assert [len(parse_event(body)) for body in (by_sqs, by_sns, by_both)] == [2, 1, 1]
    for body in ({"eventSource": "aws:sqs"}, {"EventSource": "aws:sns", "Sns": {}}):
        with pytest.raises(InputError):
            parse_event({"Records": [body]})
    with pytest.raises(InputError):
        parse_event({"Records": [{"eventSource": "aws:sqs", "body": json.dumps(by_sqs)}]})


def test_records_of_unknown_versions_do_not_take_those_beside_them_along() -> None:
    unknown = record(eventVersion="3.0")

    assert len(of(unknown, record(), unknown)) == 1
    with pytest.raises(InputError) as caught:
        of(unknown, unknown)
    assert caught.value.code == "unknown_event_version"


def eventbridge(kind: str = "Object Created", **thing: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "17793124",
        "detail-type": kind,
        "source": "aws.s3",
        "region": "ca-central-1",
        "detail": {
            "version": "0",
            "bucket": {"name": "models"},
            "object": {"key": "a+b c%20.pt", "size": 5, **thing},
            "reason": "PutObject",
        },
    }


@pytest.mark.row(2)
def test_eventbridge_keys_are_taken_as_they_are() -> None:
    found = parse_event(eventbridge(**{"version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e"}))

    assert [
        Nomination("models", "a+b c%20.pt", "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e", "eventbridge")
    ] == found


def test_eventbridge_removals_are_marked_and_other_kinds_nominate_nothing() -> None:
    assert [item.removed for item in parse_event(eventbridge("Object Deleted"))] == [True]
    assert parse_event(eventbridge("Object Tags Added")) == []


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        7,
        {},
        {"Records": "none"},
        {"Records": [None]},
        {"Records": [record(), {}]},
        {"Records": [record(eventVersion="3.0")]},
        {"Records": [record(version=7)]},
        {"Records": [record(key="")]},
        {"Records": [{**record(), "s3": {"bucket": {"name": "b"}}}]},
        {"detail-type": "Object Created"},
        {"detail-type": "Object Created", "source": "evil", "detail": {}},
        {"detail-type": "Object Created", "source": "aws.s3"},
        {"event_type": "create", "key": 5, "message": {}},
        {"event_type": "explode", "key": "/buckets/a/b", "message": {}},
        {"Type": "Notification", "Message": "{"},
        {"Type": "Notification", "Message": "\ud800"},
    ],
)
def test_unknown_forms_are_refused(body: Any) -> None:
    with pytest.raises(InputError):
        parse_event(body)


WORDS = [
    "Records",
    "s3",
    "object",
    "bucket",
    "key",
    "name",
    "eventName",
    "detail-type",
    "source",
    "detail",
    "event_type",
    "message",
    "new_entry",
    "extended",
    "Type",
    "Message",
    "versionId",
    "eventVersion",
]
VALUES = [
    "ObjectCreated:Put",
    "create",
    "aws.s3",
    "Object Created",
    "Notification",
    "/buckets/b/k",
    "2.1",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS), inner | st.sampled_from(VALUES), max_size=5)
    ),
    max_leaves=15,
)


@given(JSON)
def test_any_json_is_read_or_refused_and_never_crashes(body: Any) -> None:
    try:
        found = parse_event(body)
    except InputError:
        return
    assert all(item.bucket and item.key for item in found)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000, b'"' + b"a" * MAX_BODY_BYTES + b'"']
)
def test_a_body_that_is_no_json_or_too_large_is_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        decode(body)


# One upload as each store documents its notification; no such store was at hand to record it.
SAMPLES = json.loads((Path(__file__).parent / "samples.json").read_text())


@pytest.mark.row(2)
@pytest.mark.parametrize("store", ["aws", "eventbridge", "minio", "ceph"])
def test_an_upload_to_any_store_nominates_the_same_object(store: str) -> None:
    (found,) = parse_event(SAMPLES[store])

    assert (found.bucket, found.key, found.removed) == (
        "models",
        "models/a b+c/m.safetensors",
        False,
    )
    assert found.version_id


def test_what_guardduty_found_in_an_upload_nominates_nothing() -> None:
    assert parse_event(SAMPLES["guardduty"]) == []


@pytest.mark.parametrize("name", ["PutTagging", "DeleteTagging", "PutRetention", "PutLegalHold"])
def test_a_tag_that_minio_calls_a_creation_is_no_upload(name: str) -> None:
    body = json.loads(
        json.dumps(SAMPLES["minio"]).replace("ObjectCreated:Put", f"ObjectCreated:{name}")
    )

    assert body["Records"][0]["eventName"].endswith(name)
    assert parse_event(body) == []


@pytest.mark.parametrize(
    ("name", "removed"),
    [("s3:ObjectLifecycle:Expiration:Current", True), ("ObjectSynced:Create", False)],
)
def test_happenings_that_only_ceph_knows_are_uploads_and_removals(name: str, removed: bool) -> None:
    body = json.loads(json.dumps(SAMPLES["ceph"]).replace("ObjectCreated:Put", name))

    assert [item.removed for item in parse_event(body)] == [removed]


# What SeaweedFS 4.48 posted while a versioned bucket got: two versions of one key, a delete marker,
# a permanent deletion, a multipart upload; and an unversioned bucket a put and a deletion. Lists of
# chunks are left out.
SEEN = json.loads((Path(__file__).parent / "seaweedfs-4.48.json").read_text())


def test_a_recorded_session_of_seaweedfs_names_the_objects_and_nothing_else() -> None:
    found = [item for body in SEEN for item in parse_event(body)]
    made = {(item.bucket, item.key) for item in found if not item.removed}
    versions = {
        item.version_id
        for item in found
        if item.key == "in/a b+c/m.safetensors" and not item.removed
    }

    assert {
        ("models", "in/a b+c/m.safetensors"),
        ("plain", "p/m.bin"),
        ("models", "mp/m.bin"),
    } == made
    assert {"6715fd44a765a40f1fd56a49f72d86ef", "6715fd449acfec81d1546548b510b10e"} == versions
    assert [item.version_id for item in found if item.bucket == "plain" and not item.removed] == [
        None
    ]


def test_a_delete_marker_and_deletions_in_seaweedfs_are_removals() -> None:
    removed = [item for body in SEEN for item in parse_event(body) if item.removed]

    marker = "6715fd449916e4341b6ad4907d1aa817"
    assert Nomination("models", "in/a b+c/m.safetensors", marker, "seaweedfs", True) in removed
    assert Nomination("plain", "p/m.bin", None, "seaweedfs", True) in removed


def filer(key: str, extended: Any = None, kind: str = "create", **entry: Any) -> dict[str, Any]:
    return {
        "event_type": kind,
        "key": key,
        "message": {"new_entry": {"extended": extended or {}, **entry}},
    }


def test_a_key_that_only_looks_like_a_versions_file_stays_a_plain_key() -> None:
    path = "/buckets/plain/m.pt.versions/v_abc"
    other = {"Seaweed-X-Amz-Version-Id": "b3RoZXI="}  # "other"

    for extended in ({}, other):
        (item,) = parse_event(filer(path, extended))
        assert (item.key, item.version_id) == ("m.pt.versions/v_abc", None)


def test_a_rename_in_the_filer_names_the_new_place() -> None:
    body = filer("/buckets/b/old.pt", kind="rename", name="new.pt")
    body["message"]["new_parent_path"] = "/buckets/b/dir"

    assert [item.key for item in parse_event(body)] == ["dir/new.pt"]


@pytest.mark.parametrize(
    "body",
    [
        filer("/buckets/b/k", {"Seaweed-X-Amz-Version-Id": "***"}),
        filer("/buckets/b/k", [1]),
        filer("/buckets/b/k", {"Seaweed-X-Amz-Version-Id": 7}),
    ],
)
def test_malformed_attributes_of_the_filer_are_refused(body: Any) -> None:
    with pytest.raises(InputError):
        parse_event(body)
