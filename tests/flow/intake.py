"""A small world for intake tests.

A real bucket (SeaweedFS), a real database (SQLite), a folder of blobs, a clock.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from guard.blobs import FolderBlobs
from guard.events import Nomination
from guard.events.bucket import Bucket
from guard.flow.nominate import nominate
from guard.flow.receive import Received, receive
from guard.store import nominations, outbox, scans
from guard.store.rows import NominationRow, OutboxRow, ScanRow
from guard.store.session import make_engine, reading, transaction
from tests import sqlite
from tests.services import shared_weed

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG = (
    b'{"architecture": "resnet18",  "num_classes": 10, "pretrained_cfg": {"input_size": [3, '
    b"32, 32]}}"
)


@dataclass(frozen=True)
class Rules:
    """The limits of intake."""

    max_upload_bytes: int = 1 << 20
    manifest_grace_seconds: float = 30.0
    allow_unversioned: bool = False
    uploader_scans: int = 100
    shared_scans: int = 200
    served_name: str = "{path}"
    served_name_strip: str = "models"


@dataclass
class World:
    """Everything that `receive` works with."""

    engine: Engine
    url: str
    blobs: FolderBlobs
    bucket: Bucket
    rules: Any = field(default_factory=Rules)
    time: datetime = START

    def now(self) -> datetime:
        return self.time

    def pass_time(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def set_rules(self, **changes: Any) -> None:
        self.rules = replace(self.rules, **changes)

    def put(self, key: str, data: bytes, **more: Any) -> str | None:
        """Upload; the version id."""
        answer = self.bucket.client.put_object(Bucket=self.bucket.name, Key=key, Body=data, **more)
        return answer.get("VersionId")

    def nominate(
        self, key: str, version: str | None = None, *, removed: bool = False, bucket: str = ""
    ) -> str:
        wanted = Nomination(bucket or self.bucket.name, key, version, "s3", removed)
        return nominate(self.engine, [wanted], self.now(), buckets=[self.bucket.name])[0]

    def receive(self, nomination_id: str) -> Received:
        return receive(
            nomination_id,
            engine=self.engine,
            blobs=self.blobs,
            bucket=lambda _name: self.bucket,
            limits=self.rules,
            now=self.now,
        )

    def work(self) -> list[Received]:
        """Do what a worker would do now: every message that is due, until none is."""
        done: list[Received] = []
        while True:
            due = [row for row in self.messages("receive") if row.not_before <= self.time]
            if not due:
                return done
            done.extend(self.receive(row.payload["nomination_id"]) for row in due)
            with transaction(self.engine) as session:
                outbox.mark_sent(session, [row.id for row in due], self.time)

    def messages(self, task: str) -> list[OutboxRow]:
        """Messages of a task that were not sent yet, due or not."""
        with reading(self.engine) as session:
            rows = outbox.due(session, self.time + timedelta(days=1000), limit=10_000)
        return [row for row in rows if row.task == task]

    def scans(self) -> list[ScanRow]:
        with reading(self.engine) as session:
            return scans.list_recent(session, limit=10_000)

    def nominations(self) -> list[NominationRow]:
        with reading(self.engine) as session:
            return nominations.list_recent(session, limit=10_000)

    def nomination(self, nomination_id: str) -> NominationRow:
        with reading(self.engine) as session:
            return nominations.get(session, nomination_id)


def new_world(
    folder: Path, bucket: Bucket | None = None, *, versioned: bool = True, url: str = ""
) -> World:
    """A world of its own; with `bucket`, one that others share.

    With `url`, another database than SQLite.
    """
    url = url or sqlite.migrated(folder)
    return World(
        engine=make_engine(url),
        url=url,
        blobs=FolderBlobs(folder / "blobs"),
        bucket=bucket or shared_weed().new_bucket(versioned=versioned),
    )
