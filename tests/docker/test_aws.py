"""The policies in docker/aws: what the guard's code calls on AWS, and nothing more."""

import ast
import json
from collections.abc import Iterator
from typing import Any

import pytest

from guard.events.bucket import make_client
from tests.docker.compose import FOLDER
from tests.house.sources import python_files

AWS = FOLDER / "aws"
POLICIES: dict[str, dict[str, Any]] = {
    name: json.loads((AWS / f"{name}.json").read_text())
    for name in ("worker", "signer", "poller", "notifier", "quarantine")
}
#: The rights that each call needs. https://docs.aws.amazon.com/service-authorization/
RIGHTS = {
    "HeadObject": {"s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"},  # else 404 is a 403
    "GetObject": {"s3:GetObject", "s3:GetObjectVersion"},
    "GetBucketVersioning": {"s3:GetBucketVersioning"},
    "ListObjectVersions": {"s3:ListBucketVersions"},
    "ListObjectsV2": {"s3:ListBucket"},
    "PutObject": {"s3:PutObject"},
    "DeleteObject": {"s3:DeleteObject"},
    "GetObjectTagging": {"s3:GetObjectVersionTagging"},  # the code always names a version
    "PutObjectTagging": {"s3:PutObjectVersionTagging"},
    "GetBucketPolicy": {"s3:GetBucketPolicy"},
    "PutBucketPolicy": {"s3:PutBucketPolicy"},
    "UploadFile": {"s3:PutObject", "s3:AbortMultipartUpload"},  # boto3's own, in parts
    "ReceiveMessage": {"sqs:ReceiveMessage"},
    "DeleteMessage": {"sqs:DeleteMessage"},
}


def known() -> dict[str, str]:
    """The calls of botocore's clients, by the name of their method."""
    found = {"upload_file": "UploadFile"}
    for service in ("s3", "sqs"):
        client = make_client(access_key="a", secret_key="b", service=service)
        found |= client.meta.method_to_api_mapping
    return found


def called() -> set[str]:
    """Every call of S3 and SQS in the guard's code, but for what makes the embedded store ready."""
    methods = known()
    return {
        methods[name]
        for path in python_files("guard", "workers")
        if not path.startswith("guard/local/")
        for name in _names(ast.parse((FOLDER.parent / path).read_text()))
        if name in methods
    }


def _names(tree: ast.Module) -> Iterator[str]:
    """Methods of something called client, and names given to `get_paginator` and `_call`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = ast.unparse(node.func.value)
        if node.func.attr in {"get_paginator", "_call"} and node.args:
            if isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)
        elif owner.endswith("client"):
            yield node.func.attr


def granted(*names: str) -> set[str]:
    return {
        action
        for name in names or POLICIES
        for statement in POLICIES[name]["Statement"]
        for action in statement["Action"]
    }


def test_the_policies_grant_what_the_code_calls_and_nothing_else() -> None:
    calls = called()

    assert calls == set(RIGHTS), "name what a new call needs in RIGHTS and in docker/aws"
    assert granted() == {right for call in calls for right in RIGHTS[call]}


@pytest.mark.parametrize("name", list(POLICIES))
def test_a_policy_names_each_action_and_each_place(name: str) -> None:
    policy = POLICIES[name]

    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert set(statement) == {"Sid", "Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        assert not [action for action in statement["Action"] if "*" in action]
        for place in statement["Resource"]:
            assert place.startswith("arn:aws:")
            assert "*" not in place.removesuffix("/*")
            # Rights on objects need a path, those on a bucket none.
            on_objects = all(
                "Object" in action or "Multipart" in action for action in statement["Action"]
            )
            assert place.startswith("arn:aws:sqs") or place.endswith("/*") == on_objects


def places(name: str, action: str) -> str:
    found = [s["Resource"] for s in POLICIES[name]["Statement"] if action in s["Action"]]
    return json.dumps(found)


@pytest.mark.row(30)
def test_nobody_writes_to_uploads_and_who_reads_them_does_not_reach_the_checkpoints() -> None:
    for name in ("worker", "signer"):
        for action in ("s3:PutObject", "s3:DeleteObject"):
            assert "::models" not in places(name, action)
            assert "training-sets" not in places(name, action)
    assert "checkpoints" not in json.dumps(POLICIES["worker"])
    assert "s3:DeleteObject" not in granted("signer")
    assert "s3:GetObject" in granted("signer")
    assert "::models" not in places("signer", "s3:GetObject")
    assert granted("poller") == {"sqs:ReceiveMessage", "sqs:DeleteMessage"}


def test_who_reaches_hosts_outside_may_tag_uploads_and_neither_read_nor_write_them() -> None:
    assert granted("notifier") == {"s3:GetObjectVersionTagging", "s3:PutObjectVersionTagging"}
    assert {"::models" in places("notifier", right) for right in granted("notifier")} == {True}


def test_no_process_of_the_service_changes_the_policy_of_a_bucket() -> None:
    running = ("worker", "signer", "poller", "notifier")

    assert granted("quarantine") == {"s3:GetBucketPolicy", "s3:PutBucketPolicy"}
    assert not {right for right in granted(*running) if "Policy" in right}


def test_only_the_bucket_of_uploads_may_send_to_the_queue() -> None:
    (statement,) = json.loads((AWS / "queue.json").read_text())["Statement"]

    assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
    assert statement["Action"] == "sqs:SendMessage"
    assert set(statement["Condition"]) == {"ArnEquals", "StringEquals"}
    assert statement["Resource"] in json.dumps(POLICIES["poller"])
