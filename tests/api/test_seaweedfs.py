"""An upload to SeaweedFS reaches the API through its webhook.

And the worker's side finds what it named.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from guard.api.app import create_app
from guard.blobs import FolderBlobs
from guard.core.digests import sha256
from guard.events.bucket import Bucket
from guard.flow.context import Guard
from guard.flow.receive import receive
from guard.store import nominations
from guard.store.rows import NominationRow, NominationState
from guard.store.session import reading
from tests.api.conftest import TOKEN
from tests.flow.intake import CONFIG, Rules
from tests.services import Weed, free_ports, start_weed, stop


@pytest.fixture
def api(guard: Guard) -> Iterator[str]:
    """The API on a real port."""
    (port,) = free_ports(1)
    server = uvicorn.Server(
        uvicorn.Config(create_app(guard), host="127.0.0.1", port=port, log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def weed(api: str, tmp_path: Path) -> Iterator[Weed]:
    hook = f"{api}/events/s3"
    started = start_weed(
        tmp_path / "weed", webhook=hook, webhook_token=TOKEN, path_prefix="/buckets/models"
    )
    yield started
    stop(started.process)


def heard(guard: Guard, count: int) -> list[NominationRow]:
    """The open nominations, once there are as many as expected."""
    end = time.monotonic() + 20
    while True:
        with reading(guard.engine) as session:
            rows = nominations.pending(session)
        if len(rows) >= count or time.monotonic() > end:
            return rows
        time.sleep(0.05)


@pytest.mark.row(2)
def test_an_upload_is_nominated_by_the_webhook_and_received(
    guard: Guard, weed: Weed, tmp_path: Path
) -> None:
    client = weed.client()
    client.create_bucket(Bucket="models")
    client.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    client.put_object(Bucket="models", Key="in/a b+ü/config.json", Body=CONFIG)
    version = client.put_object(Bucket="models", Key="in/a b+ü/m.pt", Body=b"weights")["VersionId"]

    rows = {row.key: row for row in heard(guard, 2)}
    new = rows["in/a b+ü/m.pt"]
    bucket = Bucket(client, "models")
    blobs = FolderBlobs(tmp_path / "blobs")
    done = receive(
        new.id,
        engine=guard.engine,
        blobs=blobs,
        bucket=lambda _: bucket,
        limits=Rules(),
        now=guard.now,
    )

    assert set(rows) == {"in/a b+ü/config.json", "in/a b+ü/m.pt"}
    assert (new.version_id, new.source) == (version, "seaweedfs")
    assert done.state is NominationState.ACCEPTED
    assert blobs.has(sha256(b"weights"))
