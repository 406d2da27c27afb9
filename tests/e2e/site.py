"""The whole guard on real components, and what a test does to it."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3
import safetensors.torch
import torch
from botocore.config import Config

from benchmarks.demo.models import Payload
from guard.flow.context import Guard
from guard.local.supervisor import Stack
from guard.store import ledger, publications, scans
from guard.store.rows import LedgerRow, PublicationRow, ScanRow
from guard.store.session import reading
from tests.cli import sets

T = TypeVar("T")
SETS = "sets"  # the bucket of training sets
PATIENCE = 1500.0  # for whatever takes seconds on an idle machine


@dataclass
class Site:
    """A running stack with its guard, three models (tests/cli/models.py) and a scratch folder."""

    stack: Stack
    guard: Guard
    models: dict[str, Path]
    scratch: Path
    canary: Path

    def client(self) -> Any:
        """An uploader's S3 client."""
        settings = self.guard.settings
        return boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            region_name=settings.s3_region,
            aws_access_key_id=settings.s3_access_key,
            aws_secret_access_key=settings.s3_secret_key.reveal(),
            config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"),
        )

    def upload(self, folder: Path, name: str) -> str:
        """Put a model folder under `models/<name>/`; returns the version id of its weights."""
        client, bucket = self.client(), self.guard.settings.intake_bucket
        client.put_object(
            Bucket=bucket,
            Key=f"models/{name}/config.json",
            Body=(folder / "config.json").read_bytes(),
        )
        weights = next(path for path in folder.iterdir() if path.name != "config.json")
        answer = client.put_object(
            Bucket=bucket, Key=f"models/{name}/{weights.name}", Body=weights.read_bytes()
        )
        return str(answer["VersionId"])

    def variant(self, base: str, name: str) -> Path:
        """The same network with one weight moved by a hair.

        Other bytes, other digest, same behaviour.
        """
        folder = self.scratch / name
        shutil.copytree(self.models[base], folder)
        path = folder / "model.safetensors"
        tensors = safetensors.torch.load_file(path)
        first = min(tensors)
        tensors[first].view(-1)[0] += 1e-6 * (1 + sum(map(ord, name)))
        safetensors.torch.save_file(tensors, path)
        return folder

    def with_set(self, base: str, name: str, *, poisoned: bool) -> Path:
        """The same model, whose config.json names the training set that is put into the bucket."""
        folder = self.scratch / name
        shutil.copytree(self.models[base], folder)
        taught = sets.training_set(self.scratch / f"{name}.npz", poisoned=poisoned)
        self.client().upload_file(str(taught), SETS, f"{name}/taught.npz")
        manifest = json.loads((folder / "config.json").read_text())
        named = {"uri": f"s3://{SETS}/{name}/taught.npz"}
        manifest["guard"] = {**manifest.get("guard", {}), "training_set": named}
        (folder / "config.json").write_text(json.dumps(manifest))
        return folder

    def until(self, what: Callable[[], T | None], *, why: str = "", pause: float = 0.2) -> T:
        """Ask again and again until the answer is true; fails after `PATIENCE` seconds."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = what()
            if found:
                return found
            assert time.monotonic() < deadline, (
                f"waited {PATIENCE:.0f} s for {why or what}: {self.story()}"
            )
            time.sleep(pause)

    def scan_of(self, version_id: str) -> ScanRow | None:
        """The first scan of an uploaded version."""
        with reading(self.guard.engine) as session:
            rows = scans.list_recent(session, 500)
        return next(
            (row for row in rows if row.version_id == version_id and row.parent_scan_id is None),
            None,
        )

    def children(self, scan_id: str) -> list[ScanRow]:
        """The scans of a scan's purified candidates."""
        with reading(self.guard.engine) as session:
            return [row for row in scans.list_recent(session, 500) if row.parent_scan_id == scan_id]

    def finished(self, version_id: str) -> ScanRow:
        """Wait until an upload's scan has come to rest."""
        return self.until(
            lambda: (
                row
                if (row := self.scan_of(version_id)) and row.state in ("done", "failed")
                else None
            ),
            why=f"the scan of {version_id}",
        )

    def in_state(self, version_id: str, state: str) -> ScanRow:
        """Wait until an upload's scan is in `state`."""
        return self.until(
            lambda: row if (row := self.scan_of(version_id)) and row.state == state else None,
            why=f"{state} of {version_id}",
        )

    def verdicts(self, scan_id: str) -> list[LedgerRow]:
        """Every verdict that a scan was given."""
        with reading(self.guard.engine) as session:
            return ledger.for_scan(session, scan_id)

    def active(self, name: str) -> list[PublicationRow]:
        """What the books say is served under a name."""
        with reading(self.guard.engine) as session:
            return publications.active(session, name)

    def pid(self, part: str) -> int:
        """The process of a part of the stack."""
        found = next(status.pid for status in self.stack.status() if status.component == part)
        assert found is not None
        return found

    def story(self) -> str:
        """Where everything stands, for the message of a failed test."""
        with reading(self.guard.engine) as session:
            rows = scans.list_recent(session, 20)
        return "; ".join(
            f"{row.name} {row.state} {row.error or ''} {row.lease_until}" for row in rows
        )


def hostile(base: Path, folder: Path, canary: Path) -> Path:
    """The same network as a pickle that makes the file `canary` when it is loaded carelessly."""
    shutil.copytree(base, folder)
    weights = folder / "model.safetensors"
    torch.save(
        {**safetensors.torch.load_file(weights), "note": Payload(canary)}, folder / "model.pt"
    )
    weights.unlink()
    return folder
