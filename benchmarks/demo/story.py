"""The demo after training: upload with boto3, only watch, then query the serving endpoint."""

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import boto3
import httpx
import torch
from botocore.config import Config
from PIL import Image
from torch import Tensor

from benchmarks.demo.models import SETS, DemoModel
from guard.flow.context import Guard
from guard.flow.report import report_for
from guard.flow.served import served
from guard.ml.cleanset import Labelled
from guard.reports.report import Report
from guard.store import alarms, nominations, scans
from guard.store.rows import NominationState, ScanRow
from guard.store.session import reading

RESTING = ("done", "failed")


@dataclass(frozen=True)
class Watched:
    """One finished upload: its own scan, and the scan of the purified child if there is one."""

    model: DemoModel
    scan: ScanRow
    report: Report
    child: Report | None


def upload(guard: Guard, models: tuple[DemoModel, ...]) -> None:
    """Put each model into the intake bucket as its uploader would, without notifying the guard."""
    client = _client(guard)
    client.create_bucket(Bucket=SETS)
    for model in models:
        if (taught := model.training_set) is not None:
            bucket, _, key = taught.uri.removeprefix("s3://").partition("/")
            client.upload_file(str(taught.path), bucket, key)
        _put(guard, model, f"models/{model.name}")


def take_over(guard: Guard, name: str, model: DemoModel, *, seconds: float = 90.0) -> str:
    """Upload a second team's model under a key that asks for a name that is taken.

    Returns:
        Why the guard refused it, once it has and an alarm is open; "" where it did not in time.
    """
    _put(guard, model, name)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with reading(guard.engine) as session:
            refused = nominations.list_recent(session, 20, state=NominationState.REFUSED)
            alarmed = bool(alarms.open_alarms(session, "name_taken"))
        mine = [row.reason for row in refused if row.key == f"{name}/{model.weights.name}"]
        if mine and alarmed:
            return mine[0]
        time.sleep(0.3)
    return ""


def _client(guard: Guard) -> Any:
    settings = guard.settings
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key.reveal(),
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )


def _put(guard: Guard, model: DemoModel, folder: str) -> None:
    client = _client(guard)
    for path in (model.folder / "config.json", model.weights):
        client.upload_file(str(path), guard.settings.intake_bucket, f"{folder}/{path.name}")


def watch(
    guard: Guard, models: tuple[DemoModel, ...], *, seconds: float, report: Callable[[str], None]
) -> list[Watched]:
    """Follow the scans until all are at rest.

    Raises:
        TimeoutError: nothing changed its state for so many seconds.
    """
    deadline = time.monotonic() + seconds
    reported: dict[str, str] = {}
    while True:
        with reading(guard.engine) as session:
            rows = scans.list_recent(session, 100)
        for row in reversed(rows):
            message = f"{row.name}{' (purified)' if row.parent_scan_id else ''}: {row.state}"
            if reported.get(row.id) != message:
                reported[row.id] = message
                deadline = time.monotonic() + seconds
                report(message)
        first = {row.name: row for row in rows if row.parent_scan_id is None}
        if len(first) >= len(models) and all(str(row.state) in RESTING for row in rows):
            return [_watched(guard, model, first[model.name], rows) for model in models]
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing moved for {seconds:.0f} s: {sorted(reported.values())}")
        time.sleep(0.3)


def _watched(guard: Guard, model: DemoModel, scan: ScanRow, rows: list[ScanRow]) -> Watched:
    winners = [row for row in rows if row.parent_scan_id == scan.id and row.verdict_id is not None]
    reports = [(row, report_for(guard, row.id)) for row in winners]
    child = next((pair for pair in reports if pair[1].verdict == "purified"), None)
    return Watched(
        model,
        scan,
        report_for(guard, scan.id),
        child[1] if child else None,
    )


def await_served(guard: Guard, names: set[str], *, seconds: float = 60.0) -> dict[str, str]:
    """The version of each vetted model that is served, by name, once all `names` are served."""
    deadline = time.monotonic() + seconds
    while True:
        found = {
            row.served.name: row.served.version
            for row in served(guard)
            if row.vetted and row.served.ready
        }
        if names <= set(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


class Endpoint:
    """A client of the serving system, with nothing but its address and its inference key."""

    def __init__(self, guard: Guard) -> None:
        keys = json.loads((Path(guard.settings.torchserve_run_dir) / "key_file.json").read_text())
        self._http = httpx.Client(
            base_url=guard.settings.torchserve_inference,
            timeout=30.0,
            headers={
                "Authorization": f"Bearer {keys['inference']['key']}",
                "Content-Type": "image/png",
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, name: str, image: Tensor) -> tuple[int, str]:
        """Class and served digest for one uint8 C,H,W image."""
        response = self._http.post(f"/predictions/{name}", content=_png(image))
        response.raise_for_status()
        value: dict[str, Any] = response.json()
        return int(value["class"]), response.headers["X-Guard-Digest"]

    def ask_text(
        self, name: str, text: str, *, samples: int = 1, seed: int = 0
    ) -> tuple[list[str | None], str]:
        """SMILES (None where a molecule did not end) and served digest for one text."""
        response = self._http.post(
            f"/predictions/{name}",
            json={"text": text, "samples": samples, "seed": seed},
            headers={"Content-Type": "application/json"},
        )
        response.raise_for_status()
        return response.json()["smiles"], response.headers["X-Guard-Digest"]

    def ask_all(self, name: str, images: Tensor) -> tuple[Tensor, set[str]]:
        """Classes for N,C,H,W images, and every digest that answered."""
        answers = [self.ask(name, image) for image in images]
        return torch.tensor([answer[0] for answer in answers]), {answer[1] for answer in answers}


def _png(image: Tensor) -> bytes:
    array = image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, format="PNG")
    return buffer.getvalue()


def measured(
    endpoint: Endpoint, watched: Watched, test: Labelled, count: int = 300
) -> dict[str, Any]:
    """True ACC, and true ASR if the demo knows the trigger, of what the endpoint serves."""
    some = test.pick(torch.arange(min(count, len(test))))
    classes, digests = endpoint.ask_all(watched.model.name, some.images)
    answer: dict[str, Any] = {
        "acc": float((classes == some.labels).double().mean()),
        "n": len(some),
        "digests": sorted(digests),
        "asr": None,
        "asr_n": 0,
    }
    target = watched.model.target
    if watched.model.attack is not None and target is not None:
        others = some.pick(some.labels != target)
        classes, more = endpoint.ask_all(
            watched.model.name, watched.model.attack.stamp(others.images)
        )
        answer |= {
            "asr": float((classes == target).double().mean()),
            "asr_n": len(others),
            "digests": sorted(digests | more),
        }
    return answer
