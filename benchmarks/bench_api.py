"""How many nominations a second the API takes on one core while somebody reads the console.

The API runs as everywhere (`uvicorn guard.api.app:from_settings --factory`), one process that may
use one core; clients and PostgreSQL have the other. Notifications of uploads (`POST /events/s3`,
one object each) and submissions (`POST /scans`) arrive at a fixed rate whatever the answers take,
first alone, then while a reviewer's browser loads a page of the console each half second. A time
runs from when a request was due until its answer was read. Processor time is the process's own, of
all its threads, over all that it answered.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import console_rows
from benchmarks.api_load import Connection, Seen, at_rate, reading, request
from benchmarks.bench_console import database
from benchmarks.record import write
from guard.api.sessions import COOKIE
from guard.bootstrap import open_guard, upgrade_database
from guard.core.roles import Role
from guard.flow import tokens
from guard.flow.principals import Principal, authenticate
from guard.flow.sessions import open_session
from guard.local._ports import free_ports
from guard.settings import load_settings

TOKEN = "a-token-of-the-benchmark-that-nobody-else-has"  # noqa: S105
SCANS_EACH, EVIDENCE_EACH = 5, 20
PATHS = (
    "/console/",
    "/console/scans/{held}",
    "/console/scans",
    "/console/served",
    "/console/acts",
    "/console/scans?q=model-77",
)
COLUMNS = ("rate", "failed", "p50_ms", "p95_ms", "p99_ms", "core_percent", "processor_ms")
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure both routes on both databases, and write a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--databases", default="postgresql,sqlite")
    parser.add_argument("--routes", default="events,scans")
    parser.add_argument("--name", default="api", help="of the record; empty for none")
    parser.add_argument("--note", default="", help="about the machine, for the record")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for kind in given.databases.split(","):
        with tempfile.TemporaryDirectory() as folder, database(kind, Path(folder)) as url:
            found[kind] = measured(Path(folder), url, given)
            print(kind, json.dumps(found[kind], indent=1), flush=True)
    result = {
        "rate": given.rate,
        "seconds": given.seconds,
        "models": given.models,
        "note": given.note,
        "databases": found,
    }
    if given.name:
        write(given.name, result, page(result))


def measured(folder: Path, url: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Each route with and without a reader, on one database."""
    environment = {
        "GUARD_DATA_DIR": str(folder / "data"),
        "GUARD_DATABASE_URL": url,
        "GUARD_WEBHOOK_TOKEN": TOKEN,
        "GUARD_INTAKE_BUCKET": "models",
    }
    settings = load_settings(environment)
    upgrade_database(settings)
    guard = open_guard(settings)
    about = console_rows.fill(guard, given.models, SCANS_EACH, EVIDENCE_EACH)
    # As in a deployment, where only the workers have it.
    settings.signing_key_file.unlink(missing_ok=True)
    nobody = Principal(name="login", role=None)
    root = tokens.create(guard, nobody, "root", Role.OPERATOR, days=9, first=True).text
    reviewer = tokens.create(guard, authenticate(guard, root), "rita", Role.REVIEWER, days=9).text
    cookie = {"Cookie": f"{COOKIE}={open_session(guard, authenticate(guard, reviewer)).cookie}"}
    guard.engine.dispose()
    pages = [request("GET", path.format(**about), cookie) for path in PATHS]
    makers = {"events": _event, "scans": lambda run, number: _scan(root, run, number)}
    os.sched_setaffinity(0, {1})
    found = []
    with _served(environment) as (process, port):
        for route in given.routes.split(","):
            for read in (False, True):
                name = f"{route}-{'read' if read else 'alone'}"
                make = _maker(makers[route], name)
                asyncio.run(_warm(port, pages))
                found.append(
                    {
                        "route": route,
                        "console": read,
                        **asyncio.run(_load(process, port, make, pages if read else [], given)),
                    }
                )
    return found


def _maker(make: Callable[[str, int], bytes], run: str) -> Callable[[int], bytes]:
    return lambda number: make(run, number)


def _event(run: str, number: int) -> bytes:
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "bucket": {"name": "models"},
            "object": {"key": f"{run}/{number}/model.safetensors", "versionId": f"v{number}"},
        },
    }
    return request(
        "POST", "/events/s3", {"Authorization": f"Bearer {TOKEN}"}, {"Records": [record]}
    )


def _scan(token: str, run: str, number: int) -> bytes:
    wanted = {"bucket": "models", "key": f"{run}/{number}/model.safetensors"}
    return request("POST", "/scans", {"Authorization": f"Bearer {token}"}, wanted)


@contextmanager
def _served(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "guard.api.app:from_settings", "--factory"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    with (Path(environment["GUARD_DATA_DIR"]) / "api.log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", "0", *command],
            env={**os.environ, **environment, "GUARD_LOG_JSON": "true"},
            stdout=log,
            stderr=log,
        )
        try:
            _wait(port)
            yield process, port
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait(port: int) -> None:
    asked = request("GET", "/health/live", {})
    for _ in range(600):
        try:
            if asyncio.run(Connection(port).ask(asked))[0] == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("The API does not answer.")


async def _warm(port: int, pages: list[bytes]) -> None:
    for page in pages:
        status, body = await Connection(port).ask(page)
        if status != 200:
            raise RuntimeError(f"A page answers {status}: {body[:300]!r}")


async def _load(
    process: subprocess.Popen[bytes],
    port: int,
    make: Callable[[int], bytes],
    pages: list[bytes],
    given: argparse.Namespace,
) -> dict[str, Any]:
    over = asyncio.Event()
    reader = asyncio.ensure_future(reading(port, pages, over))
    began, wall = _processor(process.pid), time.perf_counter()
    seen = await at_rate(port, make, given.rate, given.seconds, 202)
    took = time.perf_counter() - wall
    over.set()
    read = await reader
    spent = _processor(process.pid) - began
    return {
        "sent": len(seen.seconds),
        "failed": len(seen.failed),
        "why": sorted(set(seen.failed))[:3],
        "rate": round(len(seen.seconds) / took, 1),
        **_quantiles(seen),
        "core_percent": round(100 * spent / took, 1),
        "processor_ms": round(1000 * spent / len(seen.seconds), 2),
        "pages": {"read": len(read.seconds), "failed": len(read.failed), **_quantiles(read)},
    }


def _quantiles(seen: Seen) -> dict[str, float]:
    if not seen.seconds:
        return {}
    return {"p50_ms": seen.at(0.5), "p95_ms": seen.at(0.95), "p99_ms": seen.at(0.99)}


def _processor(pid: int) -> float:
    """The seconds of processor time that a process has taken, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def page(result: dict[str, Any]) -> str:
    """The record's README."""
    head = (
        f"# Nominations a second\n\n{__doc__}\n{result['rate']:g} requests a second for "
        f"{result['seconds']:g} s, with {result['models']:,} models in the database. "
        f"{result['note']}\n"
    )
    parts = [head]
    for kind, found in result["databases"].items():
        rows = "\n".join(
            f"| {one['route']} | {one['pages']['read'] or '–'} | "
            f"{' | '.join(str(one[column]) for column in COLUMNS)} | "
            f"{one['pages'].get('p95_ms', '–')} |"
            for one in found
        )
        parts.append(
            f"\n## {kind}\n\n| route | pages read | answered a second | errors | p50, ms | p95 | "
            "p99 | core, % | processor time each, ms | page p95, ms |\n"
            f"|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n{rows}\n"
        )
    return "".join(parts)


if __name__ == "__main__":
    main()
