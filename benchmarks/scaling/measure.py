"""Count what the service costs beside the methods: each stage of some uploads, in this process.

The stages are the service's own, with its job server, PostgreSQL, SeaweedFS and Valkey; what is
served goes into a folder. The models are those of the canary kit and the policy has one detector:
what is counted (rows, commits, messages) does not hang on a network's size, and the seconds of
detectors and of larger files are left to the records of real networks. Seconds here are processor
time of all processes together, database, broker and store too, so that a busy machine counts alike.
"""

import json
import os
import statistics
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import redis
import safetensors.torch
from sqlalchemy import event, text

from benchmarks.bench_console import database
from benchmarks.scaling import HONEST
from guard.bootstrap import open_guard, upgrade_database
from guard.cleansets import load
from guard.core.states import ScanState
from guard.events import Nomination
from guard.flow import canary, receive, run_stage
from guard.flow.context import Guard
from guard.flow.nominate import nominate
from guard.flow.reconcile import reconcile_guard
from guard.flow.rescue import rescue
from guard.flow.sweep import sweep_guard
from guard.local.supervisor import Stack
from guard.settings import load_settings
from guard.store import canaries, cleansets, outbox, publications, scans
from guard.store.session import reading, transaction
from guard.vetting.canary_trial import KIT
from workers.app import make_app
from workers.relay import BATCH, send_due

POLICY = '[policy]\nname = "one"\nversion = 1\n[detectors.weight_statistics]\nrequired = true\n'
UPLOADS = 3
WAITING = 300  # scans that `rescue` finds waiting
OBJECTS = 100  # that `sweep` lists
TRIES = 5
WRITES = ("INSERT", "UPDATE", "DELETE")
#: Tables of which a scan makes rows; their bytes are summed.
TABLES = (
    *("scans", "nominations", "artifacts", "evidence", "verdicts", "outbox", "publications"),
    *("ledger_acts", "checkpoint_notes", "claims", "exhibits"),
)


def measured() -> dict[str, Any]:
    """Do a few uploads from event to serving, and what is done for all of them."""
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        url = ends.enter_context(database("postgresql", folder))
        (folder / "policy.toml").write_text(POLICY)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GUARD_")}
        env = {
            **kept,
            "GUARD_DATABASE_URL": url,
            "GUARD_PUBLISHER": "folder",
            "GUARD_POLICY_FILE": str(folder / "policy.toml"),
            "GUARD_MANIFEST_GRACE_SECONDS": "0",
            "GUARD_DEVICE": "cpu",
        }
        stack = ends.enter_context(Stack(folder / "data", env, parts=("seaweedfs", "valkey")))
        stack.start()
        settings = load_settings(stack.environment())
        upgrade_database(settings)
        guard = open_guard(settings)
        _prepare(guard)
        done = [_upload(guard, number) for number in range(UPLOADS)]
        found = {
            HONEST: _means(done),
            "row_bytes_a_scan": _row_bytes(guard) / UPLOADS,
            "rows_a_scan": {name: rows / UPLOADS for name, rows in _rows(guard).items() if rows},
            "parts": _parts(guard),
            "uploads": UPLOADS,
        }
        guard.engine.dispose()
        return found


def _prepare(guard: Guard) -> None:
    """The clean set, and a canary that was passed: its run is no part of a scan."""
    data = (KIT / "clean.bin").read_bytes()
    guard.blobs.put_bytes(data)
    with transaction(guard.engine) as session:
        cleansets.put(session, load(data, "patterns")[0], guard.now())
        canaries.add(
            session,
            worker=canary.worker(),
            methods=canary.methods_digest(guard),
            passed=True,
            trials=(),
            now=guard.now(),
        )


def _upload(guard: Guard, number: int) -> dict[str, dict[str, float]]:
    """Seconds, rows written, commits and messages of each stage of one upload."""
    bucket, key = guard.settings.intake_bucket, _put(guard, number)
    version = guard.make_bucket(bucket).client.head_object(Bucket=bucket, Key=key)["VersionId"]
    found: dict[str, dict[str, float]] = {}
    with _counting(guard, found, "nominate"):
        wanted = [Nomination(bucket, key, version, "webhook")]
        nominate(guard.engine, wanted, guard.now(), buckets=(bucket,))
    while True:
        with transaction(guard.engine) as session:
            due = outbox.due(session, guard.now(), BATCH)
            outbox.mark_sent(session, [row.id for row in due], guard.now())
        if not due:
            break
        for row in due:
            work = (
                partial(receive.receive_nomination, guard, str(row.payload["nomination_id"]))
                if row.task == "receive"
                else partial(run_stage.work, guard, row.task, str(row.payload["scan_id"]))
            )
            with _counting(guard, found, row.task):
                work()
    with reading(guard.engine) as session:
        scan = scans.find_by_object(session, bucket, key, version)
    if scan is None or scan.state is not ScanState.DONE:
        raise RuntimeError(f"the upload came to no end: {scan}")
    return found


@contextmanager
def _counting(guard: Guard, found: dict[str, dict[str, float]], stage: str) -> Iterator[None]:
    """Count what a block writes to the database; its messages are rows of the outbox."""
    seen: Counter[str] = Counter()

    def executed(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen["statements"] += 1
        if statement.lstrip().startswith(WRITES):
            seen["rows_written"] += max(cursor.rowcount, 0)
            seen["messages"] += "INTO outbox" in statement

    def committed(_: Any) -> None:
        seen["commits"] += 1

    began = _processor_seconds(guard)
    event.listen(guard.engine, "after_cursor_execute", executed)
    event.listen(guard.engine, "commit", committed)
    try:
        yield
    finally:
        event.remove(guard.engine, "after_cursor_execute", executed)
        event.remove(guard.engine, "commit", committed)
    spent = _processor_seconds(guard) - began
    found[stage] = {"seconds": spent, **dict.fromkeys(_NAMES, 0.0), **seen}


def _processor_seconds(guard: Guard) -> float:
    """What this process and all that it started, and the database, have taken so far."""
    with guard.engine.connect() as connection:
        backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    server = psutil.Process(backend).parent()
    here = psutil.Process()
    of = [here, *here.children(recursive=True)]
    if server is not None:
        of += [server, *server.children(recursive=True)]
    total = 0.0
    for process in dict.fromkeys(of):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])  # of ended children too
    return total


_NAMES = ("statements", "rows_written", "commits", "messages")


def _put(guard: Guard, number: int) -> str:
    """The kit's network with one weight moved by a hair, so that its bytes are new; its key."""
    data = (KIT / f"{HONEST}.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    manifest = json.loads(data[8 : 8 + length])["__metadata__"]["guard.manifest"]
    tensors = safetensors.torch.load(data)
    tensors[min(tensors)].view(-1)[0] += 1e-5 * (number + 1)
    bucket, key = guard.make_bucket(guard.settings.intake_bucket), f"models/{HONEST}-{number}"
    for name, body in (
        ("config.json", manifest.encode()),
        ("model.safetensors", safetensors.torch.save(tensors)),
    ):
        bucket.client.put_object(Bucket=bucket.name, Key=f"{key}/{name}", Body=body)
    return f"{key}/model.safetensors"


def _means(done: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The median over uploads, by stage."""
    return {
        stage: {
            name: statistics.median(one[stage][name] for one in done)
            for name in ("seconds", *_NAMES)
        }
        for stage in done[0]
    }


def _rows(guard: Guard) -> dict[str, int]:
    with guard.engine.connect() as connection:
        return {
            name: int(connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one())  # noqa: S608 - fixed names
            for name in TABLES
        }


def _row_bytes(guard: Guard) -> float:
    """Bytes of all rows, without indices."""
    with guard.engine.connect() as connection:
        return sum(
            float(
                connection.execute(
                    text(f"SELECT coalesce(sum(pg_column_size(t.*)), 0) FROM {name} t")  # noqa: S608 - fixed names
                ).scalar_one()
            )
            for name in TABLES
        )


def _parts(guard: Guard) -> dict[str, float]:
    """Processor seconds of what is done for all scans together."""
    with reading(guard.engine) as session:
        done = scans.list_recent(session, 1)[0]
        served = len(publications.active(session))
    mean = partial(_mean, guard)
    found: dict[str, float] = {"served": float(served)}
    found["reconcile"] = mean(partial(reconcile_guard, guard))
    found["duplicate"] = mean(partial(run_stage.work, guard, "detect", done.id))
    found["sweep_an_object"] = _sweep(guard)
    _waiting(guard)
    found["rescue_a_scan"] = mean(partial(rescue, guard), tries=1) / WAITING
    app = make_app(guard.settings)
    send_due(guard, app)  # opens the connection
    with redis.Redis.from_url(guard.settings.redis_url) as broker:
        before = int(broker.info("stats")["total_commands_processed"])
        found["relay_a_message"] = mean(partial(send_due, guard, app), tries=2) / BATCH
        after = int(broker.info("stats")["total_commands_processed"])
        found["commands_a_message"] = (after - before) / (2 * BATCH)
        found["message_bytes"] = float(broker.memory_usage("inspect") / broker.llen("inspect"))
    found["scans_bytes_with_indices"] = _size_of_a_scan(guard)
    found["commit"] = mean(partial(_commit, guard), tries=50)
    return found


def _sweep(guard: Guard) -> float:
    """Processor seconds for each object more that a sweep lists."""
    before = _mean(guard, partial(sweep_guard, guard))
    bucket = guard.make_bucket(guard.settings.intake_bucket)
    for number in range(OBJECTS):
        bucket.client.put_object(Bucket=bucket.name, Key=f"models/many/{number}.txt", Body=b"x")
    return max(_mean(guard, partial(sweep_guard, guard)) - before, 0.0) / OBJECTS


def _mean(guard: Guard, what: Callable[[], Any], tries: int = TRIES) -> float:
    """Processor seconds of a call."""
    began = _processor_seconds(guard)
    for _ in range(tries):
        what()
    return (_processor_seconds(guard) - began) / tries


def _waiting(guard: Guard) -> None:
    """Scans that nobody has touched for longer than a lease."""
    long_ago = guard.now() - timedelta(seconds=3 * guard.settings.lease_seconds)
    with transaction(guard.engine) as session:
        for number in range(WAITING):
            scans.insert(
                session,
                scan_id=f"{number:032x}",
                bucket="waiting",
                key=f"models/waiting-{number}/model.safetensors",
                version_id=f"{number}",
                name=f"waiting-{number}",
                now=long_ago,
                upload_digest=f"{number:064x}",
                manifest="{}",
            )


def _size_of_a_scan(guard: Guard) -> float:
    with guard.engine.connect() as connection:
        size, rows = connection.execute(
            text("SELECT pg_total_relation_size('scans'), count(*) FROM scans")
        ).one()
    return float(size / rows)


def _commit(guard: Guard) -> None:
    touch = text("UPDATE scans SET attempts = attempts WHERE id = :id")
    with guard.engine.begin() as connection:
        connection.execute(touch, {"id": f"{0:032x}"})


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(measured(), indent=1))
