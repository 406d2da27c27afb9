"""The uploaders: a thread that puts, deletes and announces objects as the schedule has it.

A client whose upload fails tries again until the store takes it. Each version that the store
acknowledged is noted; the guard owes an answer about it.
"""

import heapq
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.soak.kinds import Notice, Put, Step
from benchmarks.soak.models import Bases
from benchmarks.soak.schedule import Upload
from guard.settings import Settings

PATIENCE = 300.0  # seconds that a client tries to upload
PAUSE = 0.5


@dataclass
class Sent:
    """One upload as the store has it: its main versions by key, oldest first."""

    upload: Upload
    versions: list[tuple[str, str]] = field(default_factory=list)
    first: float = 0.0  # monotonic seconds of its first version
    deleted: bool = False
    failed: str = ""


class Sender(threading.Thread):
    """Sends all uploads in the order of their times, then ends.

    Args:
        settings: of the stack, for the addresses and keys of an uploader and of a notifier.
        api: where notices are sent to.
    """

    def __init__(
        self, settings: Settings, api: str, bases: Bases, uploads: Sequence[Upload]
    ) -> None:
        super().__init__(name="sender", daemon=True)
        self.sent = {one.number: Sent(one) for one in uploads}
        self.stopped = threading.Event()
        self._settings, self._api, self._bases = settings, f"{api}/events/s3", bases
        self._client = client_of(settings)
        self._order = count()
        self._due: list[tuple[float, int, Upload, tuple[Step, ...]]] = []
        for one in uploads:
            heapq.heappush(self._due, (one.at, next(self._order), one, ()))
        self._left = {one.number for one in uploads}

    @property
    def done(self) -> int:
        """How many uploads are complete."""
        return len(self.sent) - len(self._left)

    def run(self) -> None:
        """See the class."""
        start = time.monotonic()
        while self._due and not self.stopped.is_set():
            at, _, upload, steps = heapq.heappop(self._due)
            if self.stopped.wait(max(0.0, start + at - time.monotonic())):
                return
            steps = steps or upload.kind.make(self._bases, max(0, upload.number))
            sent = self.sent[upload.number]
            while steps:
                step, steps = steps[0], steps[1:]
                try:
                    self._do(sent, step)
                except (BotoCoreError, ClientError, httpx.HTTPError) as error:
                    sent.failed, steps = str(error), ()
                if steps and steps[0].after:
                    due = time.monotonic() - start + steps[0].after
                    heapq.heappush(self._due, (due, next(self._order), upload, steps))
                    break
            else:
                self._left.discard(upload.number)

    def _do(self, sent: Sent, step: Step) -> None:
        bucket = self._settings.intake_bucket
        if isinstance(step, Put):
            key = f"{sent.upload.folder}/{step.file}"
            version = self._patiently(
                lambda: self._client.put_object(Bucket=bucket, Key=key, Body=step.body)["VersionId"]
            )
            if step.main:
                sent.versions.append((key, str(version)))
                sent.first = sent.first or time.monotonic()
            return
        key, version = sent.versions[-1]
        if isinstance(step, Notice):
            for _ in range(step.times):
                self._patiently(lambda: self._announce(key, version))
            return
        sent.deleted = True
        self._patiently(
            lambda: self._client.delete_object(Bucket=bucket, Key=key, VersionId=version)
        )

    def _announce(self, key: str, version: str) -> None:
        about = {
            "bucket": {"name": self._settings.intake_bucket},
            "object": {"key": key, "versionId": version},
        }
        record = {"eventVersion": "2.1", "eventName": "ObjectCreated:Put", "s3": about}
        token = self._settings.webhook_token.reveal()
        answer = httpx.post(
            self._api,
            json={"Records": [record]},
            headers={"Authorization": f"Bearer {token}"},
            timeout=20,
            trust_env=False,
        )
        answer.raise_for_status()

    def _patiently(self, act: Any) -> Any:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not self.stopped.is_set():
            with suppress(BotoCoreError, ClientError, httpx.HTTPError):
                return act()
            time.sleep(PAUSE)
        return act()


def client_of(settings: Settings) -> Any:
    """An uploader's S3 client, which gives up early: the sender tries again itself."""
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key.reveal(),
        config=Config(
            s3={"addressing_style": "path"},
            signature_version="s3v4",
            connect_timeout=3,
            read_timeout=20,
            retries={"mode": "standard", "total_max_attempts": 1},
        ),
    )
