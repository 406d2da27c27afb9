"""`guard doctor` on real services and on broken ones: what it finds, and that nothing stays."""

import ctypes
import json
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from botocore.exceptions import ClientError

from guard.attest.keys import Signer, TrustedKeys
from guard.core import plugins
from guard.core.errors import InputError, Unavailable
from guard.core.queues import QUEUES
from guard.core.roles import Role
from guard.core.states import ScanState, Verdict
from guard.core.verdict import VerdictFacts
from guard.doctor import (
    CHECKS,
    Check,
    Finding,
    Options,
    State,
    _broker,
    _machine,
    _storage,
    diagnose,
)
from guard.doctor._check import Ground
from guard.flow import projects
from guard.flow._seal import seal
from guard.flow._verdict import Terms, write
from guard.flow.context import utc_now
from guard.settings import Secret, Settings, load_settings
from guard.store import canaries, ledger, principals, scans
from guard.store import projects as stored_projects
from guard.store.session import make_engine, transaction
from tests import people, postgres
from tests.flow.place import NOW, Place
from tests.services import shared_valkey, shared_weed
from tests.sqlite import migrate_like_bootstrap

NOWHERE = "http://127.0.0.1:9"
BY_NAME = {check.name: check for check in CHECKS}


def settings(folder: Path, **env: str) -> Settings:
    return load_settings({"GUARD_DATA_DIR": str(folder / "data"), **env})


def finding(name: str, given: Settings, **options: Any) -> Finding:
    others = frozenset(BY_NAME) - {name}
    (found,) = diagnose(given, Options(skip=others, **options))
    assert found.check == name
    assert (found.mend == "") is (found.state is State.OK)
    return found


def state(name: str, given: Settings, **options: Any) -> State:
    return finding(name, given, **options).state


@pytest.fixture
def installed(tmp_path: Path) -> Settings:
    """A database with the schema, and nothing else."""
    made = settings(tmp_path)
    migrate_like_bootstrap(made)
    return made


# --- as a whole


def test_on_a_machine_without_anything_each_check_finds_something_and_nothing_is_made(
    tmp_path: Path,
) -> None:
    nothing = settings(
        tmp_path,
        GUARD_S3_ENDPOINT=NOWHERE,
        GUARD_S3_ACCESS_KEY="a",
        GUARD_S3_SECRET_KEY="hunter2222",
        GUARD_REDIS_URL="redis://:hunter3333@127.0.0.1:9/0",
        GUARD_TORCHSERVE_MANAGEMENT=NOWHERE,
        GUARD_TORCHSERVE_INFERENCE=NOWHERE,
    )
    found = diagnose(nothing, Options(seconds=60))

    assert [one.check for one in found] == [check.name for check in CHECKS]
    states = {one.check: one.state for one in found}
    for name in ("database", "broker", "buckets", "serving", "blobs"):
        assert states[name] is State.FAILED, name
    for name in ("schema", "workers", "broker_messages", "canaries", "clean_sets", "clock"):
        assert states[name] is State.UNKNOWN, name
    assert not (tmp_path / "data").exists()
    told = json.dumps([one.to_dict() for one in found])
    assert "hunter" not in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("error", "state_", "part"),
    [
        (Unavailable("It is away."), State.FAILED, "It is away."),
        (RuntimeError("redis://me:hunter4444@host\nis odd"), State.UNKNOWN, "RuntimeError"),
        (ModuleNotFoundError("no", name="celery"), State.UNKNOWN, "celery"),
    ],
)
def test_what_fails_in_a_check_is_a_finding(
    tmp_path: Path, error: Exception, state_: State, part: str
) -> None:
    def breaks(_: Ground) -> Finding:
        raise error

    (found,) = diagnose(settings(tmp_path), checks=[Check("odd", breaks)])

    assert found.state is state_
    assert part in found.sentence
    assert "hunter4444" not in found.sentence
    assert "\n" not in found.sentence
    assert found.mend


def test_a_check_that_hangs_costs_a_bounded_time_and_no_other_check(tmp_path: Path) -> None:
    release = threading.Event()

    def hangs(_: Ground) -> Finding:
        release.wait(60)
        return Finding(State.OK, "late")

    begun = time.monotonic()
    hung, quick = diagnose(
        settings(tmp_path),
        Options(seconds=1),
        [Check("hangs", hangs), Check("sandbox", _machine.sandbox)],
    )
    release.set()

    assert time.monotonic() - begun < 20
    assert (hung.state, quick.check) == (State.UNKNOWN, "sandbox")
    assert "1 s" in hung.sentence


def test_a_check_that_does_not_exist_cannot_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are database"):
        diagnose(settings(tmp_path), Options(skip=frozenset({"nothing"})))


# --- database


def test_a_new_installation_has_its_schema_and_no_principal(installed: Settings) -> None:
    assert state("database", installed) is State.OK
    assert state("schema", installed) is State.OK
    assert state("database_roles", installed) is State.OK
    assert state("principals", installed) is State.WARNING
    assert state("principals", replace(installed, require_principals=True)) is State.OK
    with transaction(make_engine(installed.database_url)) as session:
        principals.put(session, "root", NOW)
    assert state("principals", installed) is State.OK


def test_a_schema_of_another_release_and_a_file_that_others_write_are_found(
    installed: Settings,
) -> None:
    engine = make_engine(installed.database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    file = installed.data_dir / "guard.db"
    file.chmod(0o666)

    assert "0001" in finding("schema", installed).sentence
    assert state("database_roles", installed) is State.FAILED


def test_the_owner_of_the_tables_has_more_rights_than_a_process_needs(tmp_path: Path) -> None:
    owner = settings(tmp_path, GUARD_DATABASE_URL=postgres.migrated())

    assert state("database", owner) is State.OK
    found = finding("database_roles", owner)
    assert found.state is State.WARNING
    assert "delete verdicts" in found.sentence


def test_a_database_that_is_not_there_is_said_once_and_left_alone(tmp_path: Path) -> None:
    away = settings(tmp_path, GUARD_DATABASE_URL="postgresql://guard:hunter5555@127.0.0.1:9/x")

    found = finding("database", away)
    assert found.state is State.FAILED
    assert "hunter5555" not in found.sentence
    for name in ("schema", "database_roles", "principals", "checkpoints", "trusted_keys"):
        assert state(name, away) is State.UNKNOWN, name


# --- broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Settings]:
    made = settings(tmp_path, GUARD_REDIS_URL=shared_valkey().url)
    client = redis.Redis.from_url(made.redis_url)
    client.delete(*QUEUES)  # of other tests
    yield made
    client.delete(*QUEUES)


def test_messages_of_anything_but_json_are_found(broker: Settings) -> None:
    client = redis.Redis.from_url(broker.redis_url)
    client.rpush("inspect", json.dumps({"body": "", "content-type": "application/json"}))
    assert state("broker", broker) is State.OK
    assert "1 messages" in finding("broker_messages", broker).sentence

    for odd in (json.dumps({"content-type": "application/x-python-serialize"}), b"\x80\x04", "[]"):
        client.delete("scan")
        client.rpush("scan", odd)
        assert state("broker_messages", broker) is State.FAILED


def test_a_broker_of_another_host_needs_a_password(
    broker: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_broker, "_LOOPBACK", set())

    assert state("broker", broker) is State.WARNING


def test_queues_without_a_worker_are_named(broker: Settings, tmp_path: Path) -> None:
    found = finding("workers", broker, seconds=60)

    assert found.state is State.FAILED
    assert "inspect" in found.sentence
    client = redis.Redis.from_url(broker.redis_url)
    assert not client.keys("*guard-doctor*")


def test_a_worker_that_answers_counts_for_its_queues(
    broker: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celery.app.control import Inspect

    def with_workers(*queues: str) -> State:
        answer = {"w@h": [{"name": name} for name in queues]}
        monkeypatch.setattr(Inspect, "active_queues", lambda _: answer)
        return state("workers", broker, seconds=60)

    all_but_train = ("inspect", "scan", "publish", "control", "watch", "notify")
    assert with_workers(*all_but_train, "train") is State.OK
    assert with_workers(*all_but_train) is State.WARNING
    assert with_workers("inspect") is State.FAILED

    def breaks(_: Inspect) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(Inspect, "active_queues", breaks)
    assert state("workers", broker, seconds=60) is State.UNKNOWN


# --- storage


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    weed = shared_weed()
    bucket = weed.new_bucket().name
    return settings(
        tmp_path,
        **weed.environment(bucket),
        GUARD_BLOB_URL=f"s3://{weed.new_bucket().name}/sha256",
    )


def objects(given: Settings) -> list[str]:
    client = shared_weed().client()
    names = [given.intake_bucket, given.blob_url.split("/")[2]]
    found = [client.list_object_versions(Bucket=name) for name in names]
    return [row["Key"] for one in found for row in one.get("Versions", [])]


def test_buckets_versions_clock_and_blobs_of_a_real_store(store: Settings) -> None:
    assert state("buckets", store) is State.OK
    assert state("bucket_versions", store) is State.OK
    assert state("bucket_events", store) is State.WARNING
    assert state("clock", store) is State.OK
    assert state("blobs", store) is State.OK
    assert objects(store) == []


def test_a_bucket_that_is_missing_or_keeps_no_versions_is_found(store: Settings) -> None:
    plain = shared_weed().new_bucket(versioned=False).name
    unversioned = replace(store, intake_bucket=plain, intake_buckets=(plain,))
    missing = replace(store, intake_bucket="not-there", intake_buckets=("not-there",))

    assert state("bucket_versions", unversioned) is State.FAILED
    assert state("bucket_versions", replace(unversioned, allow_unversioned=True)) is State.WARNING
    assert state("buckets", missing) is State.FAILED
    assert state("blobs", replace(store, blob_url="s3://not-there/x")) is State.FAILED


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, State.OK), (60, State.WARNING), (-4000, State.FAILED)]
)
def test_a_clock_that_differs_from_the_stores_is_found(
    store: Settings, seconds: int, expected: State
) -> None:
    found = _storage.clock(Ground(store, now=lambda: utc_now() + timedelta(seconds=seconds)))

    assert found.state is expected


@pytest.mark.threat("A18")
def test_an_uploader_who_can_write_where_vetted_bytes_lie_is_found(
    store: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Identity ann of the test's store has the rights to write to every bucket."""
    weed = shared_weed()
    file = tmp_path / "credentials"
    file.write_text(
        f"[ann]\naws_access_key_id = ann-access\naws_secret_access_key = {weed.secret_key}\n"
        "[stranger]\naws_access_key_id = nobody\naws_secret_access_key = wrong\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    assert state("blobs_apart", store) is State.WARNING  # without credentials refused
    refused = finding("blobs_apart", store, uploader_profile="stranger")
    let_in = finding("blobs_apart", store, uploader_profile="ann")

    assert (refused.state, let_in.state) == (State.OK, State.FAILED)
    assert "ann" in let_in.sentence
    assert objects(store) == []


def test_where_the_store_is_away_it_is_not_known_who_may_write(store: Settings) -> None:
    away = replace(store, s3_endpoint=NOWHERE, checkpoint_bucket="copies")

    assert state("blobs_apart", away, seconds=60) is State.UNKNOWN
    assert state("bucket_versions", away, seconds=60) is State.UNKNOWN
    assert state("bucket_events", away, seconds=60) is State.UNKNOWN


class Events:
    """A client whose store answers about events; everything else is real."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def get_bucket_notification_configuration(self, **_: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"QueueConfigurations": [{}]}, State.OK),
        ({"EventBridgeConfiguration": {}}, State.OK),
        ({"ResponseMetadata": {}}, State.WARNING),
        (ClientError({"ResponseMetadata": {"HTTPStatusCode": 501}}, "x"), State.WARNING),
        (ClientError({"ResponseMetadata": {"HTTPStatusCode": 403}}, "x"), State.UNKNOWN),
    ],
)
def test_what_a_bucket_says_about_events(tmp_path: Path, answer: Any, expected: State) -> None:
    ground = Ground(settings(tmp_path))
    ground.__dict__["s3"] = Events(answer)

    assert _storage.events(ground).state is expected


def test_a_folder_of_blobs_is_its_owners_alone(tmp_path: Path) -> None:
    given = settings(tmp_path)
    folder = given.data_dir / "blobs"
    assert state("blobs", given) is State.FAILED
    folder.mkdir(parents=True)
    assert state("blobs", given) is State.OK
    assert list(folder.iterdir()) == []
    folder.chmod(0o777)
    assert state("blobs", given) is State.FAILED
    assert state("blobs_apart", given) is State.OK
    folder.rmdir()
    folder.symlink_to("/proc/self")  # where nobody makes a file
    assert state("blobs", given) is State.FAILED


# --- keys


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A ledger with a verdict."""
    made = Place(tmp_path)
    _ = made.guard.signer
    return made


def decided(place: Place) -> Settings:
    scan = place.scan(place.upload(b"x"))
    with transaction(place.guard.engine) as session:
        facts = VerdictFacts(verdict=Verdict.UNVETTABLE, reasons=("x",))
        scans.move(session, scan.id, ScanState.INSPECTING, place.clock)
        scans.move(session, scan.id, ScanState.DECIDING, place.clock)
        write(place.guard, session, scan, scan.upload_digest or "", facts, Terms())
    seal(place.guard)
    return place.guard.settings


def test_keys_before_the_first_verdict(installed: Settings) -> None:
    for name in ("signing_key", "trusted_keys", "checkpoints"):
        assert state(name, installed) is State.OK, name


def test_keys_and_checkpoints_of_a_ledger(place: Place) -> None:
    given = decided(place)

    assert state("signing_key", given) is State.OK
    assert state("trusted_keys", given) is State.OK
    assert state("checkpoints", given) is State.WARNING  # no copy
    copy = given.data_dir.parent / "copy"
    with_copy = replace(given, checkpoint_copy=copy)
    assert state("checkpoints", with_copy) is State.FAILED
    copy.mkdir()
    assert state("checkpoints", with_copy) is State.OK


def test_a_key_that_others_read_that_is_not_trusted_or_that_is_gone(place: Place) -> None:
    given = decided(place)
    key = given.signing_key_file
    other = key.with_name("other.pem")
    Signer.load_or_create(other)

    assert state("signing_key", replace(given, signing_key_file=other)) is State.FAILED
    other.write_text("no key")
    assert state("signing_key", replace(given, signing_key_file=other)) is State.FAILED
    key.parent.chmod(0o777)
    assert state("signing_key", given) is State.FAILED
    assert state("trusted_keys", given) is State.FAILED
    key.parent.chmod(0o700)
    key.chmod(0o644)
    assert "read" in finding("signing_key", given).sentence
    key.unlink()
    assert state("signing_key", given) is State.WARNING


def test_trusted_keys_that_are_broken_empty_or_gone(place: Place) -> None:
    given = decided(place)
    file = given.trusted_keys_file
    whole = file.read_text()

    file.write_text("{")
    assert state("trusted_keys", given) is State.FAILED
    TrustedKeys({}).save(file)
    assert state("trusted_keys", given) is State.FAILED
    file.write_text(whole)
    file.chmod(0o666)
    assert state("trusted_keys", given) is State.FAILED
    file.unlink()
    assert state("trusted_keys", given) is State.FAILED
    away = replace(given, database_url="postgresql://127.0.0.1:9/x")
    assert state("trusted_keys", away) is State.UNKNOWN
    assert state("signing_key", replace(away, signing_key_file=file)) is State.UNKNOWN
    file.write_text(whole)
    assert state("trusted_keys", away) is State.UNKNOWN
    assert state("signing_key", away) is State.UNKNOWN


def test_a_verdict_without_a_checkpoint_and_a_file_that_is_gone_are_found(place: Place) -> None:
    given = decided(place)
    (given.checkpoint_dir / "checkpoints.jsonl").unlink()
    assert "checkpoints.jsonl" in finding("checkpoints", given).sentence

    place.clock += timedelta(hours=1)
    with transaction(place.guard.engine) as session:
        row = ledger.last(session)
        assert row is not None
        ledger.append(
            session,
            verdict_id="f" * 32,
            artifact=row.artifact_digest,
            scan_id=row.scan_id,
            verdict=row.verdict,
            envelope=row.envelope,
            issued_at=place.clock,
            expires_at=place.clock,
            policy_digest=row.policy_digest,
        )
    assert "no checkpoint" in finding("checkpoints", given).sentence


# --- serving


@contextmanager
def torchserve(tmp_path: Path, *, open_to_all: bool = False) -> Iterator[Settings]:
    """A server with TorchServe's two interfaces on one port, and its key file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["Authorization"] == "Bearer right"
            self.send_response(200 if known or open_to_all or self.path == "/ping" else 400)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    given = settings(tmp_path, GUARD_TORCHSERVE_MANAGEMENT=url, GUARD_TORCHSERVE_INFERENCE=url)
    given.torchserve_run_dir.mkdir(parents=True)
    yield given
    server.shutdown()
    server.server_close()


def test_torchserve_whose_management_asks_nobody_for_a_key_is_found(tmp_path: Path) -> None:
    with torchserve(tmp_path, open_to_all=True) as given:
        found = finding("serving", given)

    assert found.state is State.FAILED
    assert "no key" in found.sentence


def test_the_key_of_torchserve_must_be_there_right_and_private(tmp_path: Path) -> None:
    with torchserve(tmp_path) as given:
        keys = given.torchserve_run_dir / "key_file.json"
        assert "cannot be read" in finding("serving", given).sentence
        keys.write_text(json.dumps({"management": {"key": "wrong"}}))
        assert "refuses" in finding("serving", given).sentence
        keys.write_text(json.dumps({"management": {"key": "right"}}))
        keys.chmod(0o644)
        assert state("serving", given) is State.WARNING
        keys.chmod(0o600)
        assert state("serving", given) is State.OK


def test_torchserve_behind_a_socket_that_is_gone(tmp_path: Path) -> None:
    given = settings(tmp_path, GUARD_TORCHSERVE_MANAGEMENT=f"unix:{tmp_path}/none")

    assert state("serving", replace(given, torchserve_inference=NOWHERE)) is State.FAILED


def test_a_folder_to_serve_from(tmp_path: Path) -> None:
    given = settings(tmp_path, GUARD_PUBLISHER="folder")
    assert state("serving", given) is State.WARNING
    given.published_dir.mkdir(parents=True)
    assert state("serving", given) is State.OK
    given.published_dir.chmod(0o777)
    assert state("serving", given) is State.FAILED
    assert state("serving", replace(given, publisher="of_a_plug_in")) is State.OK


# --- what vets


def test_policies_that_cannot_be_read_or_are_for_other_models(tmp_path: Path) -> None:
    given = settings(tmp_path)
    broken = tmp_path / "policy.toml"
    broken.write_text("[")

    assert state("policy", given) is State.OK
    assert state("policy", replace(given, policy_file=broken)) is State.FAILED
    graphs = replace(given, graph_policy_file=Path("default"))
    assert state("policy", graphs) is State.FAILED


def test_a_projects_policy_that_cannot_be_read_is_found(place: Place) -> None:
    given, who = place.guard.settings, people.who(place.guard, "olga", Role.OPERATOR)
    projects.create(place.guard, who, "lab", "models/lab", {"policy": "strict"})
    assert state("policy", given) is State.OK

    with transaction(place.guard.engine) as session:
        stored_projects.change(session, "lab", {"policy": "gone"})

    assert state("policy", given) is State.FAILED


def test_clean_sets_must_be_there_with_their_bytes(place: Place) -> None:
    given = place.guard.settings
    assert state("clean_sets", given) is State.FAILED
    digest = place.add_cleanset()
    assert state("clean_sets", given) is State.WARNING
    (given.data_dir / "prepared").mkdir()
    (given.data_dir / "prepared" / "x.json").write_text("{}")
    assert state("clean_sets", given) is State.OK
    assert "other" in finding("clean_sets", replace(given, default_cleanset="other")).sentence
    mapped = replace(given, cleanset_map=("teams/a/=third",))
    assert "third" in finding("clean_sets", mapped).sentence
    place.guard.blobs.delete(digest)
    assert "gone" in finding("clean_sets", given).sentence


def test_the_bytes_of_clean_sets_are_looked_for_in_s3_too(place: Place, store: Settings) -> None:
    digest = place.add_cleanset()
    given = replace(store, database_url=place.guard.settings.database_url)
    assert "gone" in finding("clean_sets", given).sentence
    bucket = given.blob_url.split("/")[2]
    shared_weed().client().put_object(Bucket=bucket, Key=f"sha256/{digest}", Body=b"x")

    assert state("clean_sets", given) is State.WARNING


def test_canaries_must_be_new_and_pass(installed: Settings) -> None:
    def ran(*, passed: bool) -> None:
        with transaction(make_engine(installed.database_url)) as session:
            canaries.add(
                session,
                worker="w",
                methods="m",
                passed=passed,
                trials=[{"method": "patch_inversion", "passed": passed}],
                now=utc_now(),
            )

    assert state("canaries", installed) is State.WARNING
    ran(passed=False)
    assert "patch_inversion" in finding("canaries", installed).sentence
    ran(passed=True)
    assert state("canaries", installed) is State.OK


def test_plug_ins_that_others_can_change_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "plug-ins"
    folder.mkdir(mode=0o700)
    given = settings(tmp_path)

    assert state("plug_ins", given) is State.OK
    try:
        assert state("plug_ins", replace(given, plugins=folder)) is State.OK
        plugins.use(None)
        folder.chmod(0o777)
        assert state("plug_ins", replace(given, plugins=folder)) is State.FAILED
        assert state("plug_ins", replace(given, plugins=tmp_path / "none")) is State.FAILED
    finally:
        plugins.use(None)


# --- this host


@pytest.mark.parametrize(
    ("free", "expected"), [(1 << 20, State.FAILED), (3 << 30, State.WARNING), (1 << 40, State.OK)]
)
def test_a_disk_that_fills_up_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, expected: State
) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil's own
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 0, free))

    assert state("disk", settings(tmp_path)) is expected


@pytest.mark.parametrize(
    ("level", "expected"), [(-1, State.FAILED), (1, State.WARNING), (6, State.OK)]
)
def test_the_sandbox_of_a_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int, expected: State
) -> None:
    class Kernel:
        def syscall(self, *_: object) -> int:
            return level

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Kernel())

    assert state("sandbox", settings(tmp_path)) is expected


def test_the_device_of_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(tmp_path)

    def printing(script: str) -> None:
        monkeypatch.setattr(_machine, "_LOOK", script)

    assert state("device", replace(given, device="cpu")) is State.OK
    printing("print('GPU of a test')")
    assert "GPU of a test" in finding("device", replace(given, device="cuda:0")).sentence
    printing("print('')")
    assert state("device", replace(given, device="cuda")) is State.FAILED
    printing("import time; time.sleep(60)")
    monkeypatch.setattr(_machine, "GPU_SECONDS", 6.0)
    assert state("device", replace(given, device="cuda")) is State.UNKNOWN
    monkeypatch.setattr(_machine, "find_spec", lambda _: None)
    assert state("device", given) is State.WARNING


def test_where_traces_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(tmp_path)
    assert state("tracing", given) is State.OK
    with torchserve(tmp_path / "a") as server:
        there = replace(given, otlp_endpoint=f"{server.torchserve_inference}/v1/traces")
        assert state("tracing", there) is State.OK
    assert state("tracing", replace(given, otlp_endpoint=NOWHERE)) is State.WARNING
    headers = replace(given, otlp_endpoint=NOWHERE, otlp_headers=Secret("Bearer"))
    assert state("tracing", headers) is State.FAILED
    monkeypatch.setattr(_machine, "find_spec", lambda _: None)
    assert state("tracing", replace(given, otlp_endpoint=NOWHERE)) is State.FAILED
