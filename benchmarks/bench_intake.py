"""How fast and with how much memory a large upload is received: S3, hash, blob, one commit.

The object of 1 GiB is in the embedded SeaweedFS; SQLite and a folder of blobs are on the same
machine. Each run is a fresh process with another object. Its peak is the kernel's high-water mark
of its own memory (VmHWM), and `grown` is what receiving added to the memory of the imports.
`download_s` is the time to stream the same object and discard it, the minimum that the store sets.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import write
from guard.bootstrap import open_guard
from guard.core.digests import sha256
from guard.events.bucket import Bucket
from guard.flow.context import Guard
from guard.flow.receive import receive_nomination
from guard.flow.submit import submit
from guard.local.supervisor import Stack
from guard.settings import load_settings

PART = 32 << 20
CONFIG = (
    b'{"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": {"input_size": [3, '
    b"32, 32]}}"
)


def main() -> None:
    """Measure, print and write a record; with `--receive`, run as the measured process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--receive", metavar="NOMINATION", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.receive:
        print(json.dumps(receive_here(open_guard(load_settings()), given.receive)))
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("GUARD_")
        }
        with Stack(Path(folder), environment, parts=("seaweedfs", "database")) as stack:
            stack.start()
            runs = [
                measure(stack.environment(), given.mebibytes << 20, number)
                for number in range(given.runs)
            ]
    result = {
        "mebibytes": given.mebibytes,
        "n": given.runs,
        "runs": runs,
        "receive_s_median": statistics.median(run["receive_s"] for run in runs),
        "mib_per_s_median": round(
            statistics.median(given.mebibytes / run["receive_s"] for run in runs), 1
        ),
        "peak_mib_most": max(run["peak_mib"] for run in runs),
        "grown_mib_most": max(run["grown_mib"] for run in runs),
    }
    print(json.dumps(result, indent=2))
    write("intake", result, f"# Receiving a large upload\n\n{__doc__}")


def measure(environment: dict[str, str], size: int, number: int) -> dict[str, Any]:
    """Upload an object, receive it in a fresh process, and remove both again."""
    guard = open_guard(load_settings(environment))
    bucket = guard.make_bucket(guard.settings.intake_bucket)
    folder = f"bench/model-{number}"
    bucket.client.put_object(Bucket=bucket.name, Key=f"{folder}/config.json", Body=CONFIG)
    version = upload(bucket, f"{folder}/model.bin", size)
    facts = bucket.head(f"{folder}/model.bin", version)
    started = time.monotonic()
    streamed = sum(len(part) for part in bucket.stream(facts))
    download = time.monotonic() - started
    if streamed != size:
        raise RuntimeError("The store returned another number of bytes.")
    nomination = submit(guard, "bench", bucket.name, facts.key, version)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_intake", "--receive", nomination],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    guard.blobs.delete(found.pop("digest"))
    bucket.client.delete_object(Bucket=bucket.name, Key=facts.key, VersionId=version)
    return {**found, "download_s": round(download, 2)}


def receive_here(guard: Guard, nomination: str) -> dict[str, Any]:
    """Receive in this process, and return seconds, mebibytes and the digest."""
    guard.blobs.delete(guard.blobs.put_bytes(b"warm"))
    guard.make_bucket(guard.settings.intake_bucket).versioned()
    before, started = peak(), time.monotonic()
    done = receive_nomination(guard, nomination)
    spent, after = time.monotonic() - started, peak()
    if done.scan_id is None:
        raise RuntimeError(f"It was not received: {done}.")
    digest = next(
        path.name
        for path in Path(guard.settings.blob_url).rglob("*")
        if len(path.name) == len(sha256(b""))
    )
    return {
        "receive_s": round(spent, 2),
        "peak_mib": after,
        "grown_mib": after - before,
        "digest": digest,
    }


def peak() -> int:
    """The most memory this process ever held, in MiB."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return int(line.split()[1]) >> 10


def upload(bucket: Bucket, key: str, size: int) -> str:
    """Upload random bytes in parts, and return the version id."""
    client, part = bucket.client, secrets.token_bytes(PART)
    number = client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
    parts = []
    for index in range(1, size // PART + 1):
        body = index.to_bytes(8, "big") + part[8:]
        answer = client.upload_part(
            Bucket=bucket.name, Key=key, UploadId=number, PartNumber=index, Body=body
        )
        parts.append({"ETag": answer["ETag"], "PartNumber": index})
    done = client.complete_multipart_upload(
        Bucket=bucket.name, Key=key, UploadId=number, MultipartUpload={"Parts": parts}
    )
    return str(done["VersionId"])


if __name__ == "__main__":
    main()
