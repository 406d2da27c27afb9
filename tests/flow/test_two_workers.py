"""Two real workers on PostgreSQL, Redis and S3, of which one is killed in the middle of a scan."""

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import safetensors.torch
from celery import Celery
from sqlalchemy import text

from guard.bootstrap import open_guard
from guard.cleansets import curate, read_source
from guard.core.states import ScanState, Verdict
from guard.events import Nomination
from guard.events.bucket import Bucket
from guard.flow import canary
from guard.flow.context import Guard
from guard.flow.nominate import nominate
from guard.flow.rescue import rescue
from guard.flow.verify import verify
from guard.settings import load_settings
from guard.store import (
    alarms,
    canaries,
    cleansets,
    dead_letters,
    evidence,
    ledger,
    nominations,
    outbox,
    publications,
    scans,
)
from guard.store.rows import NominationState, ScanRow
from guard.store.session import reading, transaction
from tests import postgres
from tests.cli import models
from tests.services import Weed, shared_valkey, shared_weed
from workers.app import make_app
from workers.relay import send_due

UPLOADS = 4
LEASE = 4.0  # seconds
PATIENCE = 240.0  # for what takes seconds on an idle machine
#: A host that scans has no key; the other one does everything.
QUEUES = {"host-a": "inspect,scan", "host-b": "inspect,scan,control,publish"}


@dataclass
class Fleet:
    """A guard on shared services, and the workers that were started for it."""

    folder: Path
    weed: Weed
    intake: Bucket
    env: dict[str, str]
    guard: Guard
    app: Celery
    workers: dict[str, psutil.Popen] = field(default_factory=dict)
    rescued: dict[str, datetime] = field(default_factory=dict)
    _next_rescue: float = 0.0

    def start(self, host: str) -> None:
        """A worker with a data folder of its own, as on a host of its own."""
        (self.folder / host).mkdir()
        arguments = f"-A workers.app worker -P prefork -c 1 -O fair -Q {QUEUES[host]} -n w@{host}"
        own = {"GUARD_DATA_DIR": str(self.folder / host / "data"), "PGAPPNAME": host}
        with (self.folder / host / "log").open("wb") as log:
            self.workers[host] = psutil.Popen(
                [sys.executable, "-m", "celery", *arguments.split(), "--loglevel", "WARNING"],
                env={**os.environ, **self.env, **own},
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def signal(self, host: str, number: signal.Signals) -> None:
        """Send a signal to a worker with its pool, its job server and its jobs."""
        process = self.workers[host]
        with suppress(psutil.NoSuchProcess):
            for one in [*process.children(recursive=True), process]:
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(number)
        if number is signal.SIGKILL:
            process.wait()

    def beat(self) -> None:
        """What relay and beat do."""
        send_due(self.guard, self.app)
        if time.monotonic() >= self._next_rescue:
            self._next_rescue = time.monotonic() + LEASE / 3
            for scan_id in rescue(self.guard):
                self.rescued.setdefault(scan_id, self.guard.now())

    def until(self, what: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end, [
                (self.folder / host / "log").read_text()[-2000:] for host in self.workers
            ]
            self.beat()
            time.sleep(0.02)

    def scans(self) -> list[ScanRow]:
        with reading(self.guard.engine) as session:
            return scans.list_recent(session, 100)

    def at_detectors(self) -> set[str]:
        """The scans that some worker holds while detectors run."""
        return {
            row.id for row in self.scans() if row.state is ScanState.DETECTING and row.lease_until
        }

    def at_the_database(self, host: str) -> int:
        """How many statements of a host's workers the database has not answered yet."""
        statement = text(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = :host AND state = 'active'"
        )
        with self.guard.engine.connect() as connection:
            return int(connection.execute(statement, {"host": host}).scalar_one())

    def unanswered(self) -> set[str]:
        """The scans in messages that some worker took and has not acknowledged."""
        broker = redis.Redis.from_url(self.guard.settings.redis_url)
        bodies = [
            json.loads(base64.b64decode(json.loads(kept)[0]["body"]))
            for kept in broker.hvals("unacked")
        ]
        return {body[1]["scan_id"] for body in bodies if "scan_id" in body[1]}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    weed, valkey = shared_weed(), shared_valkey()
    redis.Redis.from_url(valkey.url).flushdb()
    intake = weed.new_bucket()
    shared = tmp_path / "shared"
    env = {
        **weed.environment(intake.name),
        "GUARD_DATABASE_URL": postgres.migrated(),
        "GUARD_REDIS_URL": valkey.url,
        "GUARD_BLOB_URL": f"s3://{weed.new_bucket(versioned=False).name}/sha256",
        "GUARD_SIGNING_KEY_FILE": str(shared / "keys/signing.pem"),
        "GUARD_TRUSTED_KEYS_FILE": str(shared / "keys/trusted.json"),
        "GUARD_CHECKPOINT_DIR": str(shared / "checkpoints"),
        "GUARD_PUBLISHER": "folder",
        "GUARD_PUBLISHED_DIR": str(shared / "published"),
        "GUARD_POLICY_FILE": str(models.QUICK),
        "GUARD_DEVICE": "cpu",
        "GUARD_LEASE_SECONDS": str(LEASE),
        "GUARD_MANIFEST_GRACE_SECONDS": "0",
    }
    settings = load_settings({**env, "GUARD_DATA_DIR": str(tmp_path / "here")})
    fleet = Fleet(tmp_path, weed, intake, env, open_guard(settings), make_app(settings))
    prepare(fleet.guard, tmp_path)
    yield fleet
    for host in fleet.workers:
        fleet.signal(host, signal.SIGKILL)
    fleet.guard.engine.dispose()


def prepare(guard: Guard, folder: Path) -> None:
    """A clean set, and a canary that this machine passed: its run is not what is tried here."""
    blob, facts = curate(read_source(models.clean_set(folder / "clean.npz", 600)), "stripes")
    guard.blobs.put_bytes(blob)
    with transaction(guard.engine) as session:
        cleansets.put(session, facts, guard.now())
        canaries.add(
            session,
            worker=canary.worker(),
            methods=canary.methods_digest(guard),
            passed=True,
            trials=(),
            now=guard.now(),
        )


def upload(fleet: Fleet, number: int, base: Path) -> None:
    """The same network with one weight moved by a hair; its event arrives twice."""
    folder = fleet.folder / f"up-{number}"
    shutil.copytree(base, folder)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors[min(tensors)].view(-1)[0] += 1e-5 * number
    client, bucket = fleet.weed.client(), fleet.intake.name
    key = f"models/up-{number}/model.safetensors"
    config = (folder / "config.json").read_bytes()
    client.put_object(Bucket=bucket, Key=f"models/up-{number}/config.json", Body=config)
    body = safetensors.torch.save(tensors)
    version = client.put_object(Bucket=bucket, Key=key, Body=body)["VersionId"]
    for _ in range(2):
        nominate(
            fleet.guard.engine,
            [Nomination(bucket, key, version, "webhook")],
            fleet.guard.now(),
            buckets=(bucket,),
        )


def kill_at_detectors(fleet: Fleet, host: str) -> tuple[set[str], datetime]:
    """Kill a worker while both are at a scan's detectors; those scans, and when it was."""
    while True:
        fleet.until(lambda: len(fleet.at_detectors()) == len(fleet.workers))
        fleet.signal(host, signal.SIGSTOP)  # what is seen now stays so
        fleet.until(lambda: not fleet.at_the_database(host))
        if len(held := fleet.at_detectors()) == len(fleet.workers):
            fleet.signal(host, signal.SIGKILL)
            return held, fleet.guard.now()
        fleet.signal(host, signal.SIGCONT)


@pytest.mark.threat("C10")
def test_of_two_workers_one_is_killed_and_no_scan_is_lost_or_done_twice(
    fleet: Fleet, tmp_path: Path
) -> None:
    base = models.saved(tmp_path / "base")
    for number in range(UPLOADS):
        upload(fleet, number, base)
    for host in QUEUES:
        fleet.start(host)

    held, at = kill_at_detectors(fleet, "host-a")
    fleet.until(
        lambda: (
            (rows := fleet.scans())
            and len(rows) == UPLOADS
            and all(row.state in {ScanState.DONE, ScanState.FAILED} for row in rows)
            and not any(row.lease_until for row in rows)
            and len(fleet.unanswered()) < len(QUEUES)
        )
    )

    # The broker keeps the dead worker's message for hours; the lease told of it within seconds.
    (orphan,) = fleet.unanswered()
    assert orphan in held
    assert fleet.rescued[orphan] - at < timedelta(seconds=3 * LEASE + 30)
    assert_one_verdict_each(fleet)
    assert_nothing_is_half_written(fleet)


def assert_one_verdict_each(fleet: Fleet) -> None:
    rows = fleet.scans()
    with reading(fleet.guard.engine) as session:
        verdicts = [entry for row in rows for entry in ledger.for_scan(session, row.id)]
        noted = nominations.list_recent(session, 100)
        found = [evidence.for_artifact(session, entry.artifact_digest) for entry in verdicts]
        active = [publications.active(session, row.name) for row in rows]
        assert dead_letters.list_all(session) == []
        assert alarms.open_alarms(session) == []
        assert outbox.waiting(session) == 0
    assert [row.state for row in rows] == [ScanState.DONE] * UPLOADS, [row.error for row in rows]
    assert {row.key for row in rows} == {f"models/up-{n}/model.safetensors" for n in range(UPLOADS)}
    assert [entry.verdict for entry in verdicts] == [Verdict.CLEARED] * UPLOADS
    assert len({entry.artifact_digest for entry in verdicts}) == UPLOADS
    assert {row.verdict_id for row in rows} == {entry.id for entry in verdicts}
    assert NominationState.NEW not in {row.state for row in noted}
    for items in found:
        assert set(Counter(item.method for item in items).values()) == {1}
    assert [len(one) for one in active] == [1] * UPLOADS


def assert_nothing_is_half_written(fleet: Fleet) -> None:
    """Ledger and served models agree; every blob is what its name says, and there is no other."""
    assert verify(fleet.guard) == []
    bucket, _, prefix = fleet.guard.settings.blob_url.removeprefix("s3://").partition("/")
    client = fleet.weed.client()
    kept = client.list_objects_v2(Bucket=bucket)["Contents"]
    for item in kept:
        body = client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        digest = item["Key"].removeprefix(f"{prefix}/").replace("/", "")
        assert digest.endswith(hashlib.sha256(body).hexdigest())
    parts = client.list_multipart_uploads(Bucket=bucket)
    assert parts.get("Uploads", []) == []
    assert list((fleet.folder / "host-b/data/work").iterdir()) == []
