"""Tags on uploads, and a bucket policy that keeps others from what was not cleared."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from guard.cli.main import run
from guard.core.errors import ArtifactRejected, InputError, Unavailable
from guard.core.hooks import HookKind
from guard.core.notes import Rescan, ScanNotes
from guard.core.roles import Act, Role
from guard.events.bucket import Bucket, make_client
from guard.flow import hooks, quarantine, run_stage, tags, withdraw
from guard.flow.principals import Forbidden, Unauthorised
from guard.flow.quarantine import StoreKind
from guard.store import acts, alarms, outbox, scans
from guard.store.session import reading, transaction
from tests import people
from tests.flow.shop import BACKDOORED, Shop
from tests.services import Weed, shared_weed

ENV = {"GUARD_OBJECT_TAGS": "true"}
GUARD_ARN = "arn:aws:iam::123456789012:role/guard"


@pytest.fixture(scope="module")
def weed() -> Weed:
    return shared_weed()


class Scene(Shop):
    """A registry over a real bucket whose uploads are tagged."""

    def __init__(self, folder: Path, bucket: Bucket, env: Mapping[str, str] = ENV) -> None:
        super().__init__(folder, {**env, "GUARD_INTAKE_BUCKET": bucket.name})
        self.bucket = bucket
        self.guard = replace(self.guard, make_bucket=lambda _name: bucket)

    def put_object(self, key: str, model: int = 0, *, tagging: str = "") -> str:
        """An upload in the bucket, and the scan of it."""
        version = self.bucket.client.put_object(
            Bucket=self.bucket.name, Key=key, Body=b"weights", Tagging=tagging
        )["VersionId"]
        scan_id = self.put(key, model)
        with transaction(self.guard.engine) as session:
            session.connection().exec_driver_sql(
                f"UPDATE scans SET version_id = '{version}' WHERE id = '{scan_id}'"
            )
        return scan_id

    def work(self) -> int:
        """What the relay and the worker of the queue `notify` do about tags."""
        with transaction(self.guard.engine) as session:
            due = [row for row in outbox.due(session, self.clock) if row.task == "tag"]
            outbox.mark_sent(session, [row.id for row in due], self.clock)
        return sum(tags.apply(self.guard, **row.payload) for row in due)

    def tags(self, scan_id: str) -> dict[str, str]:
        scan = self.scan(scan_id)
        return self.bucket.tags(scan.key, scan.version_id or "")

    def alarms(self) -> list[str]:
        with reading(self.guard.engine) as session:
            return [row.detail for row in alarms.open_alarms(session, tags.ALARM)]


@pytest.fixture
def scene(tmp_path: Path, weed: Weed) -> Iterator[Scene]:
    made = Scene(tmp_path, weed.new_bucket())
    yield made
    made.guard.engine.dispose()


def test_an_upload_is_tagged_with_how_it_stands_and_keeps_the_tags_of_others(
    scene: Scene,
) -> None:
    forged = "guard%3Averdict=cleared&guard%3Aold=x&team=a"
    scan_id = scene.put_object("models/fraud/m.pt", tagging=forged)
    assert tags.apply(scene.guard, scan_id)
    assert scene.tags(scan_id) == {"team": "a", "guard:verdict": "pending", "guard:scan": scan_id}

    scene.finish(scan_id)
    assert scene.work() == 1

    found, scan = scene.tags(scan_id), scene.scan(scan_id)
    assert found.pop("team") == "a"
    assert found == {
        "guard:verdict": "cleared",
        "guard:scan": scan_id,
        "guard:verdict-id": scan.verdict_id,
        "guard:digest": scan.canonical_digest,
        "guard:expires": found["guard:expires"],
        "guard:policy": scene.guard.policy.digest[:16],
    }
    assert tags.apply(scene.guard, scan_id), "again changes nothing"
    assert scene.scan(scan_id).verdict_id == scan.verdict_id


@pytest.mark.threat("A17")
def test_a_tag_is_never_read_back_as_a_verdict(scene: Scene) -> None:
    scan_id = scene.put_object("models/bad/m.pt", BACKDOORED, tagging="guard%3Averdict=cleared")
    scene.finish(scan_id)
    scene.work()

    assert scene.tags(scan_id)["guard:verdict"] == "rejected"
    assert scene.answers == {}


def test_what_was_withdrawn_or_has_ended_is_tagged_so(scene: Scene) -> None:
    scan_id = scene.put_object("models/fraud/m.pt")
    scene.finish(scan_id)
    other = scene.put_object("models/other/m.pt", 2)
    scene.finish(other)
    scene.work()
    assert tags.mark_expired(scene.guard) == 0
    olga = people.who(scene.guard, "olga", Role.OPERATOR)
    withdraw.withdraw(scene.guard, "fraud", "odd", olga)
    assert scene.work() == 1
    assert scene.tags(scan_id)["guard:verdict"] == "withdrawn"

    scene.clock += timedelta(seconds=scene.guard.policy.lifetime_seconds)
    assert tags.mark_expired(scene.guard) == 2
    scene.work()
    assert scene.tags(other)["guard:verdict"] == "expired"
    assert scene.tags(scan_id)["guard:verdict"] == "withdrawn"


@pytest.mark.threat("A17")
def test_inspection_overwrites_what_an_uploader_made_up(scene: Scene) -> None:
    scan_id = scene.upload()
    run_stage.work(scene.guard, "inspect", scan_id)

    with transaction(scene.guard.engine) as session:
        due = [row.task for row in outbox.due(session, scene.clock) if scan_id in str(row.payload)]
    assert due == ["tag", "detect"]


def test_an_upload_with_ten_tags_of_its_own_raises_an_alarm_and_keeps_them(scene: Scene) -> None:
    own = {f"k{number}": "v" for number in range(10)}
    full = "&".join(f"{name}=v" for name in own)
    scan_id = scene.put_object("models/fraud/m.pt", tagging=full)

    assert not tags.apply(scene.guard, scan_id)
    assert scene.tags(scan_id) == own
    assert "tags of its own" in scene.alarms()[0]
    eight = dict(list(own.items())[:8])
    wanted = {"guard:verdict": "held", "guard:scan": "s", "guard:digest": "d"}
    assert tags.merged({**eight, "guard:x": "y"}, wanted) == {
        **eight,
        "guard:verdict": "held",
        "guard:scan": "s",
    }
    scan = scene.scan(scan_id)
    scene.bucket.put_tags(scan.key, scan.version_id or "", {})
    assert tags.apply(scene.guard, scan_id)
    assert scene.alarms() == []


def test_a_tag_that_cannot_be_set_is_tried_again_and_then_an_alarm_and_an_event(
    scene: Scene, weed: Weed
) -> None:
    olga = people.who(scene.guard, "olga", Role.OPERATOR)
    hooks.add(scene.guard, olga, HookKind.SLACK, "https://a.example/", types=["guard.tag.failed"])
    scan_id = scene.put_object("models/fraud/m.pt")
    ann = make_client(endpoint=weed.endpoint, access_key="ann-access", secret_key=weed.secret_key)
    mine = scene.bucket
    scene.bucket = Bucket(ann, mine.name)  # may not tag
    scene.guard = replace(scene.guard, make_bucket=lambda _name: scene.bucket)

    assert not tags.apply(scene.guard, scan_id)
    for _ in range(tags.TRIES):
        assert scene.alarms() == []
        scene.clock += timedelta(hours=1)
        scene.work()
    assert "AccessDenied" in scene.alarms()[0]
    with reading(scene.guard.engine) as session:
        found = session.connection().exec_driver_sql("SELECT type, name FROM hook_events").all()
    assert ("guard.tag.failed", "fraud") in [tuple(row) for row in found]


def test_what_has_no_version_or_is_gone_is_not_tagged(scene: Scene) -> None:
    gone = scene.put_object("models/gone/m.pt")
    scan = scene.scan(gone)
    scene.bucket.client.delete_object(
        Bucket=scene.bucket.name, Key=scan.key, VersionId=scan.version_id
    )
    assert not tags.apply(scene.guard, gone)
    plain = scene.put("models/plain/m.pt", 2)
    with transaction(scene.guard.engine) as session:
        session.connection().exec_driver_sql(
            f"UPDATE scans SET version_id = NULL WHERE id = '{plain}'"
        )
    assert not tags.apply(scene.guard, plain)

    [one, other] = sorted(scene.alarms())
    assert "not in the bucket any more" in one
    assert "could be another upload's" in other


def test_the_verdict_on_a_repaired_copy_is_not_the_upload_s(scene: Scene) -> None:
    root = scene.put_object("models/fraud/m.pt")
    with transaction(scene.guard.engine) as session:
        for number, notes in enumerate((ScanNotes(), ScanNotes(rescan=Rescan(of=root, why="x")))):
            scans.insert(
                session,
                scan_id=f"child{number}",
                bucket=scene.bucket.name,
                key="models/fraud/m.pt",
                version_id=scene.scan(root).version_id,
                name="fraud",
                now=scene.clock,
                upload_digest=scene.models[0],
                parent_scan_id=root,
                detail=notes,
            )

    assert not tags.apply(scene.guard, "child0")
    assert tags.apply(scene.guard, "child1")


def test_nothing_is_tagged_unless_it_is_switched_on(tmp_path: Path, weed: Weed) -> None:
    scene = Scene(tmp_path, weed.new_bucket(), {})
    scan_id = scene.put_object("models/fraud/m.pt")
    scene.finish(scan_id)

    assert scene.work() == 0
    assert not tags.apply(scene.guard, scan_id)
    assert tags.mark_expired(scene.guard) == 0
    assert scene.tags(scan_id) == {}


def sids(policy: Mapping[str, Any]) -> list[str]:
    """The names of a policy's statements; the store writes lists of one as their one member."""
    return [str(one["Sid"]) for one in policy["Statement"]]


def denied(
    policy: Mapping[str, Any],
    action: str,
    *,
    arn: str = "",
    user: str = "",
    tag: str | None = None,
    sent: tuple[str, ...] = (),
) -> bool:
    """Whether a policy of denials refuses a request, as AWS documents its conditions."""
    known = {
        "aws:PrincipalArn": (arn,) if arn else (),
        "aws:username": (user,) if user else (),
        "s3:ExistingObjectTag/guard:verdict": () if tag is None else (tag,),
        "s3:RequestObjectTagKeys": sent,
    }
    # A negated operator holds where the key is missing; `ForAnyValue` does not.
    holds: dict[str, Callable[[tuple[str, ...], list[str]], bool]] = {
        "StringEquals": lambda have, want: any(one in want for one in have),
        "StringNotEquals": lambda have, want: not any(one in want for one in have),
        "ArnNotLike": lambda have, want: (
            not any(fnmatchcase(one, pattern) for one in have for pattern in want)
        ),
        "ForAnyValue:StringLike": lambda have, want: any(
            fnmatchcase(one, pattern) for one in have for pattern in want
        ),
    }
    return any(
        action in statement["Action"]
        and all(
            holds[operator](known[key], want)
            for operator, keys in statement["Condition"].items()
            for key, want in keys.items()
        )
        for statement in policy["Statement"]
    )


@pytest.mark.row(31)
@pytest.mark.parametrize("action", ["s3:GetObject", "s3:GetObjectVersion"])
@pytest.mark.parametrize("store", [StoreKind.AWS, StoreKind.MINIO])
def test_nobody_but_the_guard_reads_what_was_not_cleared(store: StoreKind, action: str) -> None:
    own = GUARD_ARN if store is StoreKind.AWS else "guard"
    policy = quarantine.policy("models", store, [own])
    guard: dict[str, Any] = {"arn": own} if store is StoreKind.AWS else {"user": own}
    other: dict[str, Any] = {"arn": GUARD_ARN + "-2"} if store is StoreKind.AWS else {"user": "ann"}

    for tag in (None, "pending", "held", "rejected", "expired", "withdrawn", "Cleared", ""):
        assert denied(policy, action, **other, tag=tag)
        assert denied(policy, action, tag=tag), "nor somebody without a name"
        assert not denied(policy, action, **guard, tag=tag)
    for tag in ("cleared", "purified"):
        assert not denied(policy, action, **other, tag=tag)
    for write in ("s3:PutObjectTagging", "s3:DeleteObjectVersionTagging"):
        assert denied(policy, write, **other)
        assert not denied(policy, write, **guard)
    assert denied(policy, "s3:PutObject", **other, sent=("team", "guard:verdict"))
    assert not denied(policy, "s3:PutObject", **other, sent=("team",))
    assert not denied(policy, "s3:PutObject", **other)


@pytest.mark.parametrize(
    ("store", "principals"),
    [
        (StoreKind.AWS, []),
        (StoreKind.AWS, ["guard"]),
        (StoreKind.AWS, ["*"]),
        (StoreKind.MINIO, [GUARD_ARN]),
        (StoreKind.SEAWEEDFS, ["guard", ""]),
    ],
)
def test_a_policy_without_the_guard_s_own_principals_is_refused(
    store: StoreKind, principals: list[str]
) -> None:
    with pytest.raises(InputError, match="lock the guard out"):
        quarantine.policy("models", store, principals)


def test_statements_of_others_are_kept_and_the_guard_s_replaced() -> None:
    own = quarantine.policy("models", StoreKind.AWS, [GUARD_ARN])
    theirs = {"Sid": "TlsOnly", "Effect": "Deny"}

    once = quarantine.merged({"Id": "x", "Statement": theirs}, own)
    assert once["Id"] == "x"
    assert quarantine.merged(once, own) == once
    assert once["Statement"][0] == theirs
    assert len(once["Statement"]) == 4
    assert quarantine.merged({}, own)["Statement"] == own["Statement"]


@pytest.mark.row(31)
def test_seaweedfs_refuses_reads_of_what_was_not_cleared(scene: Scene, weed: Weed) -> None:
    olga = people.who(scene.guard, "olga", Role.OPERATOR)
    ann = make_client(endpoint=weed.endpoint, access_key="ann-access", secret_key=weed.secret_key)
    cleared, bad = (
        scene.put_object(f"models/{name}/m.pt", model)
        for name, model in (("fraud", 0), ("bad", BACKDOORED))
    )
    untouched = scene.put_object("models/new/m.pt", 2)
    for scan_id in (cleared, bad):
        scene.finish(scan_id)
    scene.work()
    set_to = quarantine.apply(scene.guard, olga, scene.bucket.name, StoreKind.SEAWEEDFS, ["admin"])
    assert sids(scene.bucket.policy()) == sids(set_to) == ["RegistryGuardRead", "RegistryGuardTags"]

    def read(client: Any, scan_id: str, *, version: bool) -> bool:
        scan = scene.scan(scan_id)
        more = {"VersionId": scan.version_id} if version else {}
        try:
            client.get_object(Bucket=scene.bucket.name, Key=scan.key, **more)
        except ClientError:
            return False
        return True

    until = time.monotonic() + 10  # the store reads a changed policy a moment later
    while read(ann, bad, version=False) and time.monotonic() < until:
        time.sleep(0.05)
    for version in (False, True):
        assert not read(ann, bad, version=version)
        assert read(ann, cleared, version=version)
        assert read(scene.bucket.client, bad, version=version), "the guard goes on reading"
    # As far as this store goes: it cannot deny what has no tag (docs/notifications.md).
    assert read(ann, untouched, version=False)
    with reading(scene.guard.engine) as session:
        [act] = acts.of_kind(session, Act.QUARANTINE)
    assert (act.principal, act.subject) == ("olga", scene.bucket.name)


def test_only_an_operator_sets_a_policy_and_only_where_uploads_are_tagged(
    scene: Scene, tmp_path: Path, weed: Weed
) -> None:
    olga = people.who(scene.guard, "olga", Role.OPERATOR)
    rita = people.who(scene.guard, "rita", Role.REVIEWER)
    own = (StoreKind.SEAWEEDFS, ["admin"])
    name = scene.bucket.name
    with pytest.raises(Forbidden):
        quarantine.apply(scene.guard, rita, name, *own)
    with pytest.raises(Unauthorised):
        quarantine.apply(scene.guard, "login", name, *own)
    with pytest.raises(InputError, match="no intake bucket"):
        quarantine.apply(scene.guard, olga, "other", *own)
    object.__setattr__(scene.guard.settings, "object_tags", False)
    with pytest.raises(InputError, match="GUARD_OBJECT_TAGS"):
        quarantine.apply(scene.guard, olga, name, *own)
    assert scene.bucket.policy() == {}
    with reading(scene.guard.engine) as session:
        assert acts.of_kind(session, Act.QUARANTINE) == []


def test_the_command_prints_and_sets_the_policy(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("guard.bootstrap.open_guard", lambda _settings=None: scene.guard)
    monkeypatch.setenv("GUARD_TOKEN", people.give(scene.guard, "olga", Role.OPERATOR))
    command = ["quarantine", "policy", "--store", "seaweedfs", "--principal", "admin"]

    assert run(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert scene.bucket.policy() == {}
    assert run([*command, "--apply"]) == 0
    assert json.loads(capsys.readouterr().out) == printed
    assert sids(scene.bucket.policy()) == sids(printed)


def test_a_bucket_that_is_not_there_has_neither_policy_nor_tags(scene: Scene) -> None:
    with pytest.raises(Unavailable):
        Bucket(scene.bucket.client, "no-such-bucket").policy()
    with pytest.raises(ArtifactRejected):
        scene.bucket.tags("none", "0" * 32)
