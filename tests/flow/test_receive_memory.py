"""Receiving holds a few chunks in memory, however large the upload is.

The peak is the kernel's high-water mark of the process's own memory. `ru_maxrss` would not do: a
child inherits it from the process that forked it.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.flow.intake import CONFIG, World, new_world
from tests.services import shared_weed

SIZE = 256 << 20
MORE_AT_MOST = 32 << 20

PROGRAM = """
import json, sys
from datetime import datetime, UTC
from pathlib import Path
from guard.blobs import FolderBlobs
from guard.events.bucket import Bucket, make_client
from guard.flow.receive import receive
from guard.store.session import make_engine
from tests.flow.intake import Rules
url, blobs, endpoint, access, secret, bucket, small, large = sys.argv[1:]
client = make_client(endpoint=endpoint, access_key=access, secret_key=secret)
def run(nomination):
    done = receive(nomination, engine=make_engine(url), blobs=FolderBlobs(Path(blobs)),
                   limits=Rules(max_upload_bytes=1 << 30), bucket=lambda name: Bucket(client, name),
                   now=lambda: datetime.now(UTC))
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return str(done.state), int(peak.split()[1]) << 10
print(json.dumps([run(small), run(large)]))
"""  # noqa: E501 - a script of its own


def put_large(world: World, key: str, size: int) -> str:
    """Upload `size` bytes in parts of 32 MiB; the version id."""
    client, name, part = world.bucket.client, world.bucket.name, 32 << 20
    upload = client.create_multipart_upload(Bucket=name, Key=key)["UploadId"]
    parts = []
    for number in range(1, size // part + 1):
        body = number.to_bytes(4, "big") * (part // 4)
        answer = client.upload_part(
            Bucket=name, Key=key, UploadId=upload, PartNumber=number, Body=body
        )
        parts.append({"ETag": answer["ETag"], "PartNumber": number})
    done = client.complete_multipart_upload(
        Bucket=name, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
    )
    return str(done["VersionId"])


def test_a_quarter_of_a_gibibyte_costs_no_more_memory_than_a_small_upload(tmp_path: Path) -> None:
    world, weed = new_world(tmp_path), shared_weed()
    world.put("in/a/config.json", CONFIG)
    small = world.nominate("in/a/small.pt", world.put("in/a/small.pt", b"x"))
    large = world.nominate("in/a/large.pt", put_large(world, "in/a/large.pt", SIZE))

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM,
            world.url,
            str(world.blobs.root),
            weed.endpoint,
            weed.access_key,
            weed.secret_key,
            world.bucket.name,
            small,
            large,
        ],
        capture_output=True,
        check=True,
        text=True,
    )

    (one, before), (other, after) = json.loads(done.stdout.splitlines()[-1])
    assert (one, other) == ("accepted", "accepted")
    assert after - before < MORE_AT_MOST
    assert {scan.name for scan in world.scans()} == {"in--a"}
