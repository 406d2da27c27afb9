"""How much time of a scan passes outside the methods.

That is download, hashing, parsing, database, child processes and publishing. The honest demo model
goes through the whole embedded stack. The total is from the scan's row to `done`, including
publishing; the methods' part is the seconds in the detectors' own evidence. `stages_s` is how long
the scan was seen in each state, checked every 0.3 s. The worker's canary, which runs at its start
and once a day, is over before the upload.
"""

import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from benchmarks.data import load
from benchmarks.demo import story
from benchmarks.demo.__main__ import add_cleanset
from benchmarks.demo.models import train_model
from benchmarks.record import write
from guard.bootstrap import open_guard
from guard.flow import canary
from guard.flow.context import Guard
from guard.local.supervisor import Stack
from guard.settings import load_settings
from guard.store import canaries, evidence
from guard.store.session import reading


def await_canary(guard: Guard, seconds: float = 120.0) -> None:
    """Return once the worker has passed its canary; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while True:
        with reading(guard.engine) as session:
            row = canaries.latest(session, canary.worker(), canary.methods_digest(guard))
        if row is not None and row.passed:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("no worker has passed its canary")
        time.sleep(0.5)


def main() -> None:
    """Measure one scan and write a record."""
    data, load_before = load("mnist"), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, _ = train_model(data, folder / "uploads", "honest", seed=1)
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("GUARD_")
        }
        with Stack(folder / "stack", environment) as stack:
            stack.start()
            guard = open_guard(load_settings(stack.environment()))
            add_cleanset(guard, data)
            await_canary(guard)
            started = time.monotonic()
            seen: list[tuple[str, float]] = []
            story.upload(guard, (model,))
            watched = story.watch(
                guard,
                (model,),
                seconds=300,
                report=lambda message: seen.append(
                    (message.rpartition(" ")[2], time.monotonic() - started)
                ),
            )[0]
            from_upload = time.monotonic() - started
            with reading(guard.engine) as session:
                found = evidence.for_artifact(session, watched.report.digest)
    scan = watched.scan
    total = (scan.updated_at - scan.created_at).total_seconds()
    methods = sum(item.seconds for item in found)
    result = {
        "verdict": str(watched.report.verdict),
        "total_s": round(total, 2),
        "methods_s": round(methods, 2),
        "outside_s": round(total - methods, 2),
        "outside_share": round((total - methods) / total, 4),
        "stages_s": {state: round(after - at, 1) for (state, at), (_, after) in pairwise(seen)},
        "load_before": round(load_before, 1),
        "upload_to_served_s": round(from_upload, 2),
        "n": 1,
        "aim": "outside under 5 s and under 10 %",
    }
    print(result)
    write("overhead", result, f"# Time of a scan outside the methods\n\n{__doc__}")


if __name__ == "__main__":
    main()
